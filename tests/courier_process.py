"""A process that takes callbacks to their receivers as a worker does, and can be killed for it.

CAPTIONQ_BROKER_URL=redis://... python -m tests.courier_process
"""

import signal

from worker.callbacks.service import Callbacks
from worker.settings import load_settings

if __name__ == "__main__":
    settings = load_settings()
    callbacks = Callbacks(settings, str(settings.broker_url))
    callbacks.start()
    signal.sigwait({signal.SIGTERM})
    callbacks.close()
