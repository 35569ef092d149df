"""How the page of a promotion looks: plots two abreast, one below another where it is narrow."""

from __future__ import annotations

STYLES = """
:root{--canary:#b0480a;--baseline:#0067b3;--health:#007a68}
@media (prefers-color-scheme:dark){:root{--canary:#ff9d5c;--baseline:#6cb2ff;--health:#3fd0b6}}
.verdict{border:1px solid var(--line);border-left:8px solid currentColor;border-radius:10px;
padding:18px 22px;margin-top:8px}
.verdict>*{color:var(--front)}
.verdict h1{font-size:28px;color:inherit}
.verdict.good{background:var(--good-soft)}.verdict.bad{background:var(--bad-soft)}
.because{font-size:17px;margin:4px 0 10px}
.steps{list-style:none;display:flex;flex-wrap:wrap;gap:12px;margin:0;padding:0}
.steps li{flex:1 1 190px;border:1px solid var(--line);border-top:4px solid currentColor;
border-radius:8px;padding:8px 12px;font-size:14px}
.steps li>*{color:var(--front);display:block}
.steps strong{font-size:20px;line-height:1.3}
.steps li .dim{color:var(--dim)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
.plot{border:1px solid var(--line);border-radius:8px;padding:10px 12px 4px;min-width:0}
.plot h3{font-size:14px;font-weight:600}
.plot svg{display:block;width:100%;height:auto}
.plot text{font-size:12px;fill:var(--dim)}
.plot line,.plot path{fill:none;stroke:currentColor}
.plot .grid{stroke:var(--line);stroke-width:1}
.plot .mark{stroke:var(--dim);stroke-width:1;stroke-dasharray:2 3}
.plot text.name{fill:var(--front);font-weight:600}
.plot .blank{fill:var(--none);opacity:.16}
.plot line.limit{stroke:var(--front);stroke-width:1.4;stroke-dasharray:7 4}
.plot text.limit{fill:var(--front);font-weight:600}
.plot .line{stroke-width:2;stroke-linejoin:round}
.plot .thick{stroke-width:3}
.plot .line.dashed{stroke-width:1.6;stroke-dasharray:5 3}
.plot .line.abort{stroke-dasharray:8 3}
.plot .canary{stroke:var(--canary)}.plot .baseline{stroke:var(--baseline)}
.plot .abort{stroke:var(--bad)}.plot .health{stroke:var(--health)}
.plot .dot{stroke-width:1.6;fill:var(--back)}
.plot .leader{stroke-width:1;opacity:.55;stroke-dasharray:1 3}
.plot line.leader.limit{stroke-width:1;stroke-dasharray:1 3}
.plot .label{stroke:none}
.plot text.canary{fill:var(--canary)}.plot text.baseline{fill:var(--baseline)}
.plot text.abort{fill:var(--bad)}.plot text.health{fill:var(--health)}
.figures td{font-variant-numeric:tabular-nums}
.figures td:not(:first-child):not(:last-child){white-space:nowrap}
.figures td:last-child{min-width:240px}
.rules td:first-child{min-width:140px}
@media (max-width:640px){.verdict{padding:14px}.verdict h1{font-size:23px}}
@media print{.verdict,.plot,.steps li{break-inside:avoid}}
"""
