"""Collects findings, shows them grouped by severity and code, and turns them into an exit status."""
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from .codes import CODES, SEVERITIES

SHOWN = 5  # examples of each code on screen
KEPT = 10_000  # of each code about annotations; beyond, they are only counted, so that a million fit into memory
EXIT_STATUS = {'error': 4, 'warning': 3, 'note': 0}  # 1 and 2 mean a defect and a mistake in the command


@dataclass(frozen=True)
class Finding:
    """One problem: its code, the file, what in it (an id, a class, a key) and the value found."""
    code: str
    file: str
    id: object = None
    value: object = None

    @property
    def severity(self) -> str:
        """'error', 'warning' or 'note'."""
        return CODES[self.code][0]


class Findings(list):
    """Findings in the order found: all about images, the first `KEPT` of each other code; and counts of all."""

    def __init__(self):
        super().__init__()
        self.checked = Counter()
        self.found = Counter()  # code -> number of findings

    def add(self, code: str, file, id=None, value=None) -> None:
        """Note a finding; the code must be one of `CODES`."""
        assert code in CODES
        self.found[code] += 1
        if self.found[code] <= KEPT or code.startswith('image-'):  # --fix has to know every image
            self.append(Finding(code, str(file), id, value))

    def counts(self) -> dict[str, int]:
        """Severity -> number of findings."""
        return {severity: sum(count for code, count in self.found.items() if CODES[code][0] == severity)
                for severity in SEVERITIES}

    def exit_status(self) -> int:
        """0 for nothing or notes, 3 for warnings, 4 for errors."""
        return max((EXIT_STATUS[CODES[code][0]] for code in self.found), default=0)

    def lines(self) -> list[str]:
        """What the screen shows: the worst first, a few of each kind, then the counts."""
        groups = {}
        for finding in self:
            groups.setdefault(finding.code, []).append(finding)
        lines = []
        for code in sorted(groups, key=lambda code: SEVERITIES.index(CODES[code][0])):
            severity, meaning = CODES[code]
            lines.append(f'{severity}: {code} ({self.found[code]:,}): {meaning}')
            for finding in groups[code][:SHOWN]:
                parts = [finding.file, *([str(finding.id)] if finding.id is not None else [])]
                lines.append(f'    {", ".join(parts)}' + (f': {finding.value}' if finding.value is not None else ''))
            if self.found[code] > SHOWN:
                lines.append(f'    ... and {self.found[code] - SHOWN:,} more (--json FILE has {len(groups[code]):,})')
        checked = ', '.join(f'{count:,} {what}' for what, count in self.checked.items())
        found = ', '.join(f'{count:,} {severity}s' for severity, count in self.counts().items())
        return [*lines, f'checked {checked}: {found}']

    def write_json(self, file) -> None:
        """Write findings and counts, complete or not at all."""
        content = {'checked': dict(self.checked), 'counts': self.counts(), 'codes': dict(self.found),
                   'findings': [{'severity': finding.severity, **asdict(finding)} for finding in self]}
        part = Path(f'{file}.part')
        part.write_text(json.dumps(content, indent=1, default=str) + '\n')
        os.replace(part, file)
