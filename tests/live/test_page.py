"""The page of live labelling in a browser: real clicks and keys, pixels of the canvas, files of a snapshot."""

import csv
import io
import math
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from sonogravity.datasets.labels import Labels
from sonogravity.reporting.pictures import PALETTE, contour_overlay, contours

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")
import fake_server  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: chromium, chromium-browser or google-chrome")
HEIGHT, WIDTH = 160, 148
PER_MM = (4.0, 5.0)  # x, y
STATISTICS = {
    "type": "statistics",
    "frames_per_s": 29.7,
    "source_frames_per_s": 30.0,
    "latency_ms": {"p50": 31.2, "p95": 44},
    "dropped": {"reader": 0, "network": 12, "encoder": 0, "client": 3},
}
READ_CANVAS = """() => {
  const {width, height} = canvas;
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  const rows = Array.from({length: height}, (_, k) => data.subarray(4 * width * k, 4 * width * (k + 1)));
  return [width, height, rows.map((row) => String.fromCharCode(...row)).join("")];
}"""


def scene(k):
    """Return grey levels and class indices of frame k: two boxes that touch, one of them moves down with k."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = ((rows * 3 + columns * 5 + k * 7) % 256).astype(np.uint8)
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[40 + k : 70 + k, 20:100] = 1
    classes[70 + k : 100 + k, 60:148] = 2  # up to the edge of the image
    return image, classes


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def server():
    started = fake_server.FakeServer()
    yield started
    started.stop()


class View:
    """A page that is open, and what a test does with it. It fails if the page logs an error or leaves its origin."""

    def __init__(self, browser, server, **options):
        self.server, self.errors, self.requests = server, [], []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(server.address)
        self.wait(lambda: server.socket is not None)
        self.expect_text("mode", "WAITING")

    def wait(self, condition, seconds=15):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.page.wait_for_timeout(10)

    def show(self, *ks, **changed):
        """Send frames one by one, each when the one before is painted."""
        for k in ks:
            self.server.send_frame(*scene(k), k, **changed)
            self.wait(lambda k=k: {"type": "painted", "id": k} in self.server.said)
        return self

    def canvas(self):
        """Return the (H, W, 3) pixels on the canvas."""
        width, height, data = self.page.evaluate(READ_CANVAS)
        return np.frombuffer(data.encode("latin-1"), np.uint8).reshape(height, width, 4)[..., :3]

    def text(self, id):
        return self.page.locator(f"#{id}").text_content()

    def expect_text(self, id, wanted):
        self.wait(lambda: wanted in self.text(id))

    def cells(self, row):
        """Return confidence, depth under the centre line and on the needle of a row of the table."""
        return self.page.locator(f"#classes tr:nth-child({row}) td").all_text_contents()[1:]

    def close(self):
        self.context.close()
        assert not self.errors
        origin = f"http://127.0.0.1:{self.server.port}/"
        assert self.requests and all(url.startswith(origin) for url in self.requests)


@pytest.fixture
def view(browser, server):
    opened = View(browser, server)
    yield opened
    opened.close()


def overlaid(k, opacity=0.15, off=(), drawing="both"):
    """Return the (H, W, 3) float picture that the page must show, computed by hand from the definition."""
    image, classes = scene(k)
    shown = np.where(np.isin(classes, off), 0, classes)
    picture = np.repeat(image[..., None], 3, axis=2).astype(float)
    colours = np.array([(0, 0, 0), *PALETTE[:2]], float)
    if drawing != "contour":
        filled = shown != 0
        picture[filled] += opacity * (colours[shown[filled]] - picture[filled])
    if drawing != "fill":
        lines, outline = contours(shown, 0, math.ceil(HEIGHT / 450))
        flat = picture.reshape(-1, 3)
        flat[outline] = 0
        flat[lines] = colours[shown.ravel()[lines]]
    return picture


def assert_shows(view, wanted):
    difference = np.abs(view.canvas() - wanted)
    assert difference.max() <= 0.51, f"{(difference > 0.51).any(axis=2).sum()} pixels differ"


def test_a_frame_is_painted_as_the_pictures_of_predict_are(view):
    view.show(0)
    assert_shows(view, overlaid(0))
    image, classes = scene(0)
    canvas = view.canvas()
    ours = contour_overlay(np.repeat(image[..., None], 3, axis=2), classes, Labels.create([0, 128, 255]))
    assert np.abs(canvas.astype(int) - ours).max() <= 1  # they round halves differently
    assert tuple(canvas[40, 50]) == PALETTE[0]  # contour
    assert tuple(canvas[39, 50]) == (0, 0, 0)  # outline
    assert tuple(canvas[99, 147]) == PALETTE[1]
    assert tuple(canvas[85, 147]) != PALETTE[1]  # the edge of the image is no contour
    assert (canvas[classes == 0][:50] == image[classes == 0][:50, None]).all()


def test_wide_contours_grow_as_those_of_predict_do(view):
    random = np.random.default_rng(1)
    height, width = 1400, 40  # contours of four pixels, an outline of two
    classes = random.choice(np.array([0, 0, 1, 2], np.uint8), (height // 20, width // 8))
    classes = classes.repeat(20, axis=0).repeat(8, axis=1)
    classes[::97, ::3] = 1  # single pixels, also inside and on edges
    image = random.integers(0, 256, (height, width)).astype(np.uint8)
    view.server.send_frame(image, classes, 0)
    view.wait(lambda: view.server.said)
    ours = contour_overlay(np.repeat(image[..., None], 3, axis=2), classes, Labels.create([0, 128, 255]))
    assert np.abs(view.canvas().astype(int) - ours).max() <= 1


def test_the_page_says_what_it_shows(view):
    view.show(0)
    view.server.send(STATISTICS, {"type": "state", "text": "<i>the source has ended</i>"})
    view.expect_text("rate", "29.7 (source 30.0)")
    assert view.text("latency") == "p50 31 ms, p95 44 ms"
    assert view.text("dropped") == "reader 0, network 12, encoder 0, client 3"
    assert view.text("state") == "<i>the source has ended</i>"
    assert "<b>nerve</b>" in view.page.locator("#classes").text_content()  # names are text, never HTML
    assert "unet first · torch on cpu · sweep.mp4" in view.text("origin")
    assert view.page.get_by_text("Research use only. Not a medical device.").is_visible()
    view.expect_text("mode", "LIVE")
    view.expect_text("mode", "NO NEW FRAMES")  # after two seconds without any


@pytest.mark.parametrize(
    ("confidence", "unlike", "texts"),
    [
        ({"1": 0.95, "2": 0.9}, False, ("confidence high (0.90)", "like the training frames")),
        ({"1": 0.95, "2": 0.76}, True, ("confidence middle (0.76)", "unlike the training frames")),
        ({"1": 0.2, "2": None}, None, ("confidence low (0.20)", "likeness to the training frames: not known")),
        ({"1": None, "2": None}, None, ("no structure found", "likeness to the training frames: not known")),
    ],
)
def test_confidence_and_likeness(view, confidence, unlike, texts):
    view.show(0, confidence=confidence, unlike=unlike)
    assert (view.text("confidence-text"), view.text("unlike")) == texts


def test_opacity_drawing_and_classes_switch_at_once_and_cost_the_server_nothing(view):
    view.show(0)
    said = len(view.server.said)
    page = view.page
    page.locator("#opacity").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert view.text("opacity-text") == "30 %"
    assert_shows(view, overlaid(0, 0.3))
    page.locator("#classes input").first.click()
    assert_shows(view, overlaid(0, 0.3, off=[1]))
    page.get_by_label("contour", exact=True).click()
    assert_shows(view, overlaid(0, off=[1], drawing="contour"))
    page.keyboard.press("m")
    page.keyboard.press("1")
    assert_shows(view, overlaid(0, 0.3, drawing="fill"))
    page.keyboard.press("m")
    page.keyboard.press("-")
    assert_shows(view, overlaid(0, 0.25))
    assert len(view.server.said) == said


def test_the_bare_image_is_one_key_away(view):
    view.show(0)
    page, bare = view.page, np.repeat(scene(0)[0][..., None], 3, axis=2)
    for key in ("Space", "b"):
        page.keyboard.down(key)
        assert_shows(view, bare)
        assert not page.locator("#centre-line").is_visible()
        view.show(0)  # a frame that comes meanwhile is bare, too
        assert_shows(view, bare)
        page.keyboard.up(key)
        assert_shows(view, overlaid(0))
    page.locator("#bare").hover()
    page.mouse.down()
    assert_shows(view, bare)
    page.mouse.up()
    assert_shows(view, overlaid(0))
    # A button that was clicked does not keep the space bar for itself.
    page.locator("#classes input").first.click()
    page.keyboard.down("Space")
    assert_shows(view, bare)
    page.keyboard.up("Space")
    assert_shows(view, overlaid(0, off=[1]))


def test_freeze_scrolls_through_the_last_frames_and_goes_on(view):
    view.show(*range(12))
    page = view.page
    page.locator("#freeze").click()
    view.expect_text("mode", "FROZEN")
    view.wait(lambda: view.server.paused)
    view.server.send_frame(*scene(30), 30)  # was on its way
    assert_shows(view, overlaid(11))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert_shows(view, overlaid(9))
    assert "frame 9, sweep_000009" in view.text("moment-text")
    page.keyboard.press("Shift+ArrowLeft")
    assert_shows(view, overlaid(0))
    page.keyboard.press("End")
    assert_shows(view, overlaid(11))
    page.locator("#moment").focus()
    page.keyboard.press("Home")
    assert_shows(view, overlaid(0))
    view.wait(lambda: not view.server.unpainted)  # the server waits for nothing
    page.keyboard.press("f")
    view.wait(lambda: not view.server.paused)
    assert_shows(view, overlaid(11))
    assert_shows(view.show(31), overlaid(31))
    view.expect_text("mode", "LIVE")


def test_frames_that_a_newer_one_replaced_are_acknowledged_with_it(view):
    frames = [fake_server.pack(*scene(k), k) for k in range(8)]
    view.server.send(*frames)
    view.wait(lambda: {"type": "painted", "id": 7} in view.server.said)
    assert [message["id"] for message in view.server.said] == list(range(8))
    assert_shows(view, overlaid(7))


def test_the_ring_is_bounded_in_time_number_and_bytes(view):
    lengths = view.page.evaluate(
        """async () => {
          const {Ring} = await import("/live.js");
          const fill = (count, step, bytes) => {
            const ring = new Ring();
            for (let k = 0; k < count; k++) ring.push({header: {captured_ms: k * step}, bytes});
            return [ring.frames.length, ring.bytes];
          };
          return [fill(1000, 100, 1), fill(1000, 1, 1), fill(1000, 1, 1e6), fill(3, 1, 1e9), fill(0, 1, 1)];
        }"""
    )
    assert lengths == [[101, 101], [600, 600], [200, 200e6], [1, 1e9], [0, 0]]


def depth_under(classes, column, c):
    rows = np.flatnonzero(classes[:, column] == c)
    return f"{(rows[0] + 0.5) / PER_MM[1]:.1f} mm" if rows.size else "–"


def test_depths_under_the_centre_line(view):
    view.show(7)
    page, classes = view.page, scene(7)[1]
    assert view.cells(1)[1:] == [depth_under(classes, 74, 1), "–"] == ["9.5 mm", "–"]
    assert view.cells(2)[1] == depth_under(classes, 74, 2)
    page.keyboard.press("c")  # off
    assert view.cells(1)[1] == "–"
    page.keyboard.press("c")  # on, with the focus
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert [view.cells(k)[1] for k in (1, 2)] == ["–", depth_under(classes, 104, 2)]
    assert page.locator("#centre-handle").get_attribute("aria-valuetext") == f"{104.5 / 4:.1f} mm from the left"
    handle, stage = page.locator("#centre-handle .knob").bounding_box(), page.locator("#stage").bounding_box()
    y = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 30.6 / WIDTH, y, steps=3)
    page.mouse.up()
    assert [view.cells(k)[1] for k in (1, 2)] == [depth_under(classes, 30, 1), "–"]
    page.locator("#centre-x").fill("15.1")
    assert view.cells(2)[1] == depth_under(classes, 60, 2)
    assert_shows(view, overlaid(7))  # lines are no part of the picture


def depth_on_needle(classes, x, y, angle, c):
    """Return the depth, in mm, of the first pixel of a class on a needle. x, y: pixels; angle: degrees, 90 is down."""
    along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])  # in mm
    distances = np.arange(0, 80, 0.01)
    columns, rows = (np.floor(start + distances * a * s) for start, a, s in zip((x, y), along, PER_MM, strict=True))
    inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    columns, rows = columns[inside].astype(int), rows[inside].astype(int)
    hits = np.flatnonzero(classes[rows, columns] == c)
    centre = np.array([columns[hits[0]] + 0.5 - x, rows[hits[0]] + 0.5 - y]) / PER_MM
    return f"{centre @ along:.1f} mm"


def test_depths_on_the_needle(view):
    view.show(3)
    page, classes = view.page, scene(3)[1]
    page.locator("#needle-on").click()
    for name, value in (("entry-x", "2.5"), ("entry-y", "1"), ("angle", "55")):
        page.locator(f"#{name}").fill(value)
    assert [view.cells(k)[2] for k in (1, 2)] == [depth_on_needle(classes, 10, 5, 55, c) for c in (1, 2)]
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.keyboard.press("Shift+ArrowRight")  # entry at x = 20
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+ArrowUp")  # 45 degrees
    assert [view.cells(k)[2] for k in (1, 2)] == [depth_on_needle(classes, 20, 5, 45, c) for c in (1, 2)]
    assert page.locator("#angle").input_value() == "45.0"
    stage, knob = page.locator("#stage").bounding_box(), page.locator("#angle-handle .knob").bounding_box()
    page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 20 / WIDTH, stage["y"] + stage["height"] / 2, steps=3)
    page.mouse.up()
    angle = float(page.locator("#angle").input_value())
    assert abs(angle - 90) < 1
    assert page.get_by_text("Geometry, not tracking.").is_visible()


def test_without_spacing_all_is_in_pixels_and_says_so(browser, server):
    server.hello = fake_server.hello(pixels_per_mm=None)
    view = View(browser, server)
    view.show(0)
    assert view.text("scale") == "not calibrated"
    assert view.cells(1)[1] == "40.5 px"
    assert "px" in view.page.locator("#ruler-bottom text").all_text_contents()
    view.close()


def test_rulers_count_millimetres(view):
    view.show(0)
    for id, length in (("ruler-left", HEIGHT / PER_MM[1]), ("ruler-bottom", WIDTH / PER_MM[0])):
        numbers = [text for text in view.page.locator(f"#{id} text").all_text_contents() if text != "mm"]
        steps = np.diff([float(each) for each in numbers])
        assert numbers[0] == "0" and np.allclose(steps, steps[0]) and float(numbers[-1]) <= length
    stage = view.page.locator("#stage").bounding_box()
    assert abs(stage["width"] / stage["height"] - (WIDTH / PER_MM[0]) / (HEIGHT / PER_MM[1])) < 0.01


def test_a_snapshot_holds_frame_labels_overlay_and_measurements(view, tmp_path):
    view.show(0, 5)
    view.page.keyboard.press("n")
    downloads = []
    view.page.on("download", lambda download: downloads.append(download))
    view.page.keyboard.press("s")
    view.wait(lambda: len(downloads) == 4)
    for each in downloads:
        each.save_as(tmp_path / each.suggested_filename)
    image, classes = scene(5)
    stem = tmp_path / "sweep_000005"
    with Image.open(f"{stem}_labels.png") as labels, Image.open(f"{stem}_frame.png") as frame:
        assert labels.mode == frame.mode == "L"
        assert (np.array(labels) == classes).all() and (np.array(frame) == image).all()
    with Image.open(f"{stem}_overlay.png") as overlay:
        assert (np.array(overlay) == view.canvas()).all()
    text = (tmp_path / "sweep_000005_measurements.csv").read_text(encoding="utf-8")
    [row] = csv.DictReader(io.StringIO(text))
    assert row["frame"] == "sweep_000005" and row["area_mm2_bone"] == "12.5" and row["expected_dice_bone"] == "0.93"
    assert float(row["depth_centre_mm_bone"]) == (45 + 0.5) / PER_MM[1] and row["area_mm2_<b>nerve</b>"] == ""
    assert f"{float(row['depth_needle_mm_bone']):.1f} mm" == depth_on_needle(classes, WIDTH * 0.2, 0, 60, 1)
    view.expect_text("notice", "download folder")


def test_a_jpeg_frame_is_shown_with_exact_labels(view):
    image, classes = scene(2)
    smooth = np.repeat(np.linspace(0, 255, WIDTH).astype(np.uint8)[None], HEIGHT, axis=0)
    written = io.BytesIO()
    Image.fromarray(smooth).save(written, "JPEG", quality=95)
    view.server.send_frame(image, classes, 2, jpeg=written.getvalue())
    view.wait(lambda: {"type": "painted", "id": 2} in view.server.said)
    canvas = view.canvas().astype(int)
    assert np.abs(canvas[110:] - smooth[110:, :, None]).max() <= 8
    assert tuple(canvas[42, 50]) == PALETTE[0]


def test_malformed_messages_are_skipped_with_a_line(view):
    image, classes = scene(0)
    good = fake_server.pack(image, classes, 1)
    truncated, wrong_runs = good[:-8], good[:-4] + b"\1\0\0\0"
    jpeg = fake_server.pack(image, classes, 1, jpeg=b"no picture")
    bad = [b"", b"\xff" * 40, b"\x04\0\0\0nul ", truncated, wrong_runs, jpeg, "{", "[]", '{"type": "odd"}']
    bad.append(fake_server.pack(image, classes, 1, width=-1))
    bad.append(fake_server.pack(image, classes, 1, confidence=None))
    for k, message in enumerate(bad, 1):
        view.server.send(message)
        view.expect_text("notice", f"({k} so far)")
    assert_shows(view.show(2), overlaid(2))


def test_everything_works_by_keyboard_alone(view):
    view.show(0)
    page = view.page
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "() => [document.activeElement.id || document.activeElement.type || 'body',"
            " getComputedStyle(document.activeElement).outlineStyle,"
            " document.activeElement.labels?.length || document.activeElement.textContent.trim()"
            " || document.activeElement.ariaLabel]"
        )
        if focus[0] == "body":
            break
        seen.append(focus)
    names = [each[0] for each in seen]
    for wanted in ("help-button", "stage", "centre-handle", "freeze", "bare", "snapshot", "checkbox", "opacity"):
        assert wanted in names
    for wanted in ("smooth", "centre-on", "centre-x", "needle-on", "radio"):
        assert wanted in names
    assert all(outline != "none" or "handle" in name for name, outline, _ in seen)  # a handle changes its colours
    assert all(label for *_, label in seen)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("f")  # no key acts behind the list
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    assert view.text("mode") != "FROZEN"
    page.locator("#freeze").focus()
    page.keyboard.press("Enter")
    view.expect_text("mode", "FROZEN")


def test_the_page_connects_again_by_itself(browser):
    server = fake_server.FakeServer()
    view = View(browser, server)
    view.show(0, 1)
    server.stop()
    view.expect_text("mode", "NO CONNECTION")
    view.expect_text("connection", "Connection lost")
    again = fake_server.FakeServer(port=server.port)
    view.server = again
    view.wait(lambda: again.socket is not None, 15)
    view.wait(lambda: view.text("connection") == "")
    assert_shows(view.show(2), overlaid(2))
    view.close()
    again.stop()


def test_a_hidden_page_pauses(view):
    view.show(0)
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    view.page.evaluate(hide, True)
    view.wait(lambda: view.server.paused)
    view.page.evaluate(hide, False)
    view.wait(lambda: not view.server.paused)
    assert_shows(view.show(1), overlaid(1))


def test_a_source_that_changes_its_size_is_followed(view):
    view.show(0)
    image, classes = (part[:100, :90].copy() for part in scene(0))
    view.server.send(fake_server.hello(width=90, height=100, pixels_per_mm=[2.5, 2.5]))
    view.server.send_frame(image, classes, 1)
    view.wait(lambda: {"type": "painted", "id": 1} in view.server.said)
    assert view.canvas().shape == (100, 90, 3)
    assert view.text("scale") == "2.50 px/mm" and view.cells(2)[1] == "28.2 mm"
    view.page.keyboard.press("f")
    view.page.keyboard.press("Home")  # the older frame has its own size and scale
    assert_shows(view, overlaid(0))
    assert view.text("scale") == "4.00 × 5.00 px/mm"


def test_smoothing_is_steered_from_one_page(view):
    page = view.page
    page.locator("#smooth").fill("0.1")
    page.keyboard.press("Enter")
    view.wait(lambda: {"type": "steer", "smooth_seconds": 0.1} in view.server.said)
    view.server.send(fake_server.hello(steering=False, smooth_seconds=0.1))
    view.expect_text("smooth-note", "another viewer steers")
    assert page.locator("#smooth").is_disabled()


TEXTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    throw new Error("nothing is behind the text");
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const [text, parent] = [walker.currentNode.textContent.trim(), walker.currentNode.parentElement];
    if (!text || !parent.checkVisibility({visibilityProperty: true}) || parent.closest("noscript")) continue;
    const style = getComputedStyle(parent);
    const own = luminance(rgb(parent instanceof SVGElement ? style.fill : style.color).slice(0, 3));
    const other = luminance(behind(parent));
    const contrast = (Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05);
    found.push([text, parseFloat(style.fontSize), contrast]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (360, 740)])
def test_texts_are_legible_and_nothing_scrolls_sideways(browser, server, scheme, size):
    server.hello = fake_server.hello(pixels_per_mm=None)
    view = View(browser, server, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    view.show(0, confidence={"1": 0.2, "2": 0.9}, unlike=True)
    server.send(STATISTICS, {"type": "state", "text": "the source has ended"}, "{")
    view.expect_text("notice", "skipped")
    view.page.keyboard.press("n")
    view.page.keyboard.press("f")
    texts = view.page.evaluate(TEXTS)
    view.page.keyboard.press("f")
    if size[0] == 360:
        view.expect_text("mode", "NO NEW FRAMES")
        texts += view.page.evaluate(TEXTS)
    view.page.keyboard.press("?")
    texts += view.page.evaluate(TEXTS)
    assert len(texts) > 100
    assert not [text for text in texts if text[1] < 12]
    assert not [text for text in texts if text[2] < 4.5]
    assert view.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    use = view.page.get_by_text("Research use only. Not a medical device.").bounding_box()
    assert use["y"] >= 0 and use["y"] + use["height"] <= size[1]
    view.close()


def test_drawing_keeps_pace_with_the_stream(view):
    """30 frames/s at 800 x 740 leave 33 ms; the bound is wide because the machine may be busy."""
    times = view.page.evaluate(
        """async () => {
          const {Picture, readFrame} = await import("/live.js");
          const [width, height] = [740, 800];
          const runs = [];
          for (let row = 0; row < height; row++) {
            const from = 200 + Math.round(60 * Math.sin(row / 20));
            if (row < 300 || row > 700) runs.push(width);
            else runs.push(from, (1 << 24) | 200, (2 << 24) | 100, width - 300 - from);
          }
          const frame = {header: {width, height}, pixels: new Uint8Array(width * height).fill(99),
                         runs: Uint32Array.from(runs)};
          const picture = new Picture(document.createElement("canvas"));
          const look = {bare: false, drawing: "both", opacity: 0.15, background: 0, off: new Set(),
                        colours: {1: [230, 159, 0], 2: [86, 180, 233]}};
          const times = [];
          for (let k = 0; k < 60; k++) {
            const start = performance.now();
            picture.load(frame, null);
            picture.paint(look);
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    print(f"drawing: median {np.median(times):.1f} ms, worst of the last 40 {max(times[20:]):.1f} ms")
    assert np.median(times) < 33
