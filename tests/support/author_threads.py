"""A worker author's module that does at import what a module must not do there: it starts a thread."""

import threading
import time

from crank.worker.app import Worker

app = Worker("threads")
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


@app.capability("threads.idle", version="1.0.0")
def idle() -> int:
    """Do nothing."""
    return 0
