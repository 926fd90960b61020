"""A list of findings: printed by severity and code, written as json, summed up in an exit status."""
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from ...utils.files import atomic_write
from .codes import CODES, SEVERITIES

SHOWN = 5  # examples of each code on screen
KEPT = 10_000  # of each code about annotations; more are only counted, so that a million fit into memory
EXIT_STATUS = {'error': 4, 'warning': 3, 'note': 0}  # --strict; 1 and 2: a defect, and a wrong command line


@dataclass(frozen=True)
class Finding:
    """One problem: its code, the file, the place in it (an id, a class, a key) and the value found."""
    code: str
    file: str
    id: object = None
    value: object = None

    @property
    def severity(self) -> str:
        """'error', 'warning' or 'note'."""
        return CODES[self.code][0]


class Findings(list):
    """Findings in the order found: all about images, the first `KEPT` of every other code; and counts of all."""

    def __init__(self):
        super().__init__()
        self.checked = Counter()
        self.found = Counter()  # code -> number of findings

    def add(self, code: str, file, id=None, value=None) -> None:
        """Append a finding; `code` is one of `CODES`."""
        assert code in CODES
        self.found[code] += 1
        if self.found[code] <= KEPT or code.startswith('image-'):  # --fix needs every image
            self.append(Finding(code, str(file), id, value))

    def counts(self) -> dict[str, int]:
        """Severity -> number of findings."""
        return {severity: sum(count for code, count in self.found.items() if CODES[code][0] == severity)
                for severity in SEVERITIES}

    def exit_status(self, strict: bool = False) -> int:
        """4 for errors, otherwise 0; with ``strict``, 3 for warnings."""
        status = max((EXIT_STATUS[CODES[code][0]] for code in self.found), default=0)
        return status if strict or status > EXIT_STATUS['warning'] else 0

    def lines(self) -> list[str]:
        """The printed report: the worst first, a few of each code, then the counts."""
        groups = {}
        for finding in self:
            groups.setdefault(finding.code, []).append(finding)
        lines = []
        for code in sorted(groups, key=lambda code: SEVERITIES.index(CODES[code][0])):
            severity, meaning = CODES[code]
            lines.append(f'{severity}: {code} ({self.found[code]:,}): {meaning}')
            for finding in groups[code][:SHOWN]:
                parts = [finding.file, *([str(finding.id)] if finding.id is not None else [])]
                lines.append(one_line(f'    {", ".join(parts)}' + (f': {finding.value}' if finding.value is not None
                                                                   else '')))
            if self.found[code] > SHOWN:
                lines.append(f'    ... and {self.found[code] - SHOWN:,} more (--json FILE has {len(groups[code]):,})')
        checked = ', '.join(f'{count:,} {what}' for what, count in self.checked.items())
        found = ', '.join(f'{count:,} {severity}s' for severity, count in self.counts().items())
        return [*lines, f'checked {checked}: {found}']

    def write_json(self, file) -> None:
        """Write findings and counts."""
        content = {'checked': dict(self.checked), 'counts': self.counts(), 'codes': dict(self.found),
                   'findings': [{'severity': finding.severity, **asdict(finding)} for finding in self]}
        with atomic_write(Path(file)) as part:
            part.write_text(json.dumps(content, indent=1, default=str) + '\n')


def one_line(text: str) -> str:
    """Text from data for a terminal: line breaks, control characters and the like are written as escapes."""
    return text if text.isprintable() else ''.join(
        character if character.isprintable() else character.encode('unicode_escape').decode() for character in text)
