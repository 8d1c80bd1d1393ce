"""Reads every file of a folder while an audit hook watches, and prints what came of each as JSON.

Run as a program of its own, ``python watched.py FOLDER GOOD_FILE``: a hook cannot be taken away again.
"""

import json
import sys
import time
from pathlib import Path

from styleforge.convert import load_any

FORBIDDEN = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "marshal.")
HARMLESS = ("os.listdir", "os.scandir")
events: list[str] = []
armed = False


def watch(event: str, arguments: tuple) -> None:
    if not armed:
        return
    if event == "open" and arguments[1] not in ("r", "rb", None):
        events.append(f"open {arguments}")
    elif event.startswith(FORBIDDEN) and event not in HARMLESS:
        events.append(f"{event} {arguments}"[:200])


folder, good = Path(sys.argv[1]), sys.argv[2]
load_any(good)  # whatever is imported on first use
for first in sorted(folder.iterdir())[:1]:
    try:
        load_any(first)
    except ValueError as error:
        str(error)
sys.addaudithook(watch)
results = {}
for path in sorted(folder.iterdir()):
    before, start = len(events), time.process_time()  # of this process alone, however busy the machine is
    armed = True
    try:
        load_any(path)
        outcome = "read"
    except ValueError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"ESCAPED: {type(error).__name__}: {str(error)[:200]}"
    armed = False
    results[path.name] = {"outcome": outcome, "events": events[before:], "sec": time.process_time() - start}
# Not ru_maxrss, which a new program takes over from the one that started it.
status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else "VmHWM: 0 kB"
memory = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
print(json.dumps({"results": results, "memory": memory}))
