"""python healthy.py PORT [PATH]: status 0 if this machine's PORT answers a GET of PATH (/healthz).

PORT is a number, or the name of an environment variable that holds it.
"""

import os
import sys
import urllib.request

port = os.environ.get(sys.argv[1], sys.argv[1])
path = sys.argv[2] if len(sys.argv) > 2 else "/healthz"
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    direct.open(f"http://127.0.0.1:{port}{path}", timeout=4).close()
except OSError as exc:
    sys.exit(f"{path} on port {port}: {exc}")
