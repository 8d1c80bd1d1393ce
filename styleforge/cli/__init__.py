"""The command line: the only place, with the studio, that parses arguments, prints usage errors or exits."""
