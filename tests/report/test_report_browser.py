"""The pages in a real headless browser, at phone and desktop width: no script errors, nothing wider than the screen."""
import json
import re
import shutil
import subprocess

import pytest

from convnext_dense.report import write_report

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
WIDTHS = (390, 1200)
pytestmark = pytest.mark.skipif(BROWSER is None, reason='no chromium: apt-get install chromium')

# runs in the copy of a page, inside a frame as wide as a screen, and tells the page around it what it measured
MEASURE = """<script>
const errors = [];
addEventListener('error', event => errors.push(event.message || 'cannot load ' + event.target.src), true);
addEventListener('load', () => parent.postMessage({
  errors, page: PAGE, width: innerWidth, needs: document.documentElement.scrollWidth,
  sections: document.querySelectorAll('section').length,
  narrow: [...document.querySelectorAll('img')].filter(img => img.naturalWidth === 0).length,
  wide: [...document.querySelectorAll('body *')].filter(part => !part.closest('.scroll, pre')
    && part.getBoundingClientRect().right > innerWidth + 1).map(part => part.tagName + '.' + part.className)}, '*'));
</script>"""
COLLECT = """<pre id="result"></pre><script>
const found = [];
addEventListener('message', event => { found.push(event.data);
  document.getElementById('result').textContent = JSON.stringify(found); });
</script>"""


def browse(pages, folder) -> dict[tuple[str, int], dict]:
    """Open copies of pages in frames of both widths; (page, width) -> what was measured there, console included."""
    frames = ''
    for page in pages:
        html = page.read_text()
        assert html.count('<head>') == 1
        (folder / page.name).write_text(html.replace('<head>', '<head>' + MEASURE.replace('PAGE', f'"{page.name}"')))
        frames += ''.join(f'<iframe src="{page.name}" width="{width}" height="900" style="border: 0"></iframe>'
                          for width in WIDTHS)
    (folder / 'frames.html').write_text(f'<!DOCTYPE html><html><body>{COLLECT}{frames}</body></html>')
    done = subprocess.run(
        [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-logging=stderr',
         f'--user-data-dir={folder / "profile"}', '--window-size=1300,1000', '--virtual-time-budget=20000',
         '--dump-dom', f'file://{folder / "frames.html"}'], text=True, capture_output=True, timeout=240, check=True)
    measured = json.loads(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)[1].replace('&gt;', '>'))
    console = re.findall(r'CONSOLE.*', done.stderr)
    return {(found['page'], found['width']): {**found, 'console': console} for found in measured}


def test_the_browser_sees_faults(tmp_path):
    (tmp_path / 'pages').mkdir()
    faulty = tmp_path / 'pages/faulty.html'
    faulty.write_text('<html><head></head><body><p style="width: 500px">wide</p><img src="missing.png">'
                      '<script>console.error("planted"); undefinedName()</script></body></html>')
    found = browse([faulty], tmp_path)
    phone, desktop = found['faulty.html', 390], found['faulty.html', 1200]
    assert phone['needs'] > 390 and phone['wide'] == ['P.'] and desktop['needs'] <= 1200
    assert phone['narrow'] == 1 and any('undefinedName' in error for error in phone['errors'])
    assert any('planted' in line for line in phone['console'])


@pytest.mark.slow
def test_pages_fit_phones_and_desktops_without_errors(make_run, tmp_path):
    det = make_run('detector', 'det', config='mask-rcnn_convnext-t-in1k_fpn_8xb2-amp-ms-crop-3x_coco')
    other = make_run('another_detector_with_quite_a_long_name_for_a_phone', 'det', seed=1)
    seg = make_run('segmentor', 'seg')
    (tmp_path / 'pages').mkdir()
    pages = [write_report(dirs, tmp_path / 'pages' / name, images=1)
             for dirs, name in (([det], 'det.html'), ([seg], 'seg.html'), ([det, other], 'both.html'))]
    for page in pages:
        html = re.sub(r'base64,[^"]*', '', page.read_text())
        assert not re.search(r'https?://|url\(|@import|<script|src="(?!data:)|href="(?!data:)', html), \
            'the page asks for something outside itself'
        assert page.stat().st_size < 4e6
    found = browse(pages, tmp_path)
    assert set(found) == {(page.name, width) for page in pages for width in WIDTHS}
    for place, measured in found.items():
        print(place, f'needs {measured["needs"]} pixels')
        assert measured['errors'] == [] and measured['console'] == [], place
        assert measured['wide'] == [] and measured['needs'] <= measured['width'], place
        assert measured['sections'] >= 7 and measured['narrow'] == 0, place
