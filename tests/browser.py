"A headless Chromium, driven over its debugging protocol."
import base64
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def exception_text(details):
    "What an exception in the page says."
    return details.get("exception", {}).get("description", details["text"])


class Browser:
    "One page; its errors and its requests to the network are kept."
    def __init__(self, width=1280, height=1000):
        self.home = tempfile.mkdtemp()
        call = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader",
                "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--remote-debugging-port=0", f"--user-data-dir={self.home}", "--allow-file-access-from-files",
                "about:blank"]
        self.process = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in self.process.stderr:
            if found := re.search(r"ws://\S+", line): break
        else: raise RuntimeError(f"{CHROMIUM} ended before it listened")
        self.socket = websocket.create_connection(found[0], suppress_origin=True, timeout=60)
        self.ids, self.session = itertools.count(1), None
        self.errors, self.requests = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"): self.call(f"{domain}.enable")
        self.size(width, height)

    def __enter__(self): return self
    def __exit__(self, *_):
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def _note(self, message):
        "Keep an event."
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown": self.errors.append(exception_text(params["exceptionDetails"]))
        if kind == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        if kind == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        if kind == "Network.requestWillBeSent": self.requests.append(params["request"]["url"])

    def call(self, method, **params):
        "Send a command and wait for its answer."
        number = next(self.ids)
        session = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps(dict(id=number, method=method, params=params) | session))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") != number: self._note(message)
            elif "error" in message: raise RuntimeError(f"{method}: {message['error']['message']}")
            else: return message["result"]

    def js(self, code):
        "The value of an expression in the page; a promise is awaited."
        result = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result: raise RuntimeError(exception_text(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait(self, code, seconds=30):
        "Wait until an expression is true."
        end = time.time() + seconds
        while not (value := self.js(code)):
            if time.time() > end: raise TimeoutError(f"not within {seconds} s: {code}")
            time.sleep(.2)
        return value

    def open(self, url):
        "Go to a page, and wait until it is there."
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'", 60)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 500)

    def shot(self): return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
