"""How an explanation looks: the chain from left to right, from top to bottom where it is narrow."""

from __future__ import annotations

STYLES = """
.verdict{border:1px solid var(--line);border-left:8px solid currentColor;border-radius:10px;
padding:18px 22px;margin-top:8px}
.verdict>*{color:var(--front)}
.verdict h1{font-size:30px;color:inherit}
.verdict.good{background:var(--good-soft)}.verdict.bad{background:var(--bad-soft)}
.verdict.unsure{background:var(--unsure-soft)}
.because{font-size:17px;margin:4px 0 14px}
.chain{list-style:none;display:flex;align-items:stretch;margin:0;padding:22px 0 0;gap:34px}
.step{flex:1 1 0;min-width:0;position:relative;display:flex}
.step ul{list-style:none;margin:0;padding:0;display:flex;flex-direction:column;width:100%;
justify-content:center}
.step li{position:relative;padding:5px 0;display:flex;flex:1 1 0;align-items:center}
.step ul:has(>li:only-child)>li{flex:0 0 auto}
.caption{position:absolute;top:-22px;left:-34px;font-size:11px;color:var(--dim);white-space:nowrap}
.step li::before,.step li::after{content:"";position:absolute;top:0;bottom:0;width:0;
border-left:2px solid var(--line)}
.step li::before{left:-18px}.step li::after{right:-18px}
.step li:first-child::before,.step li:first-child::after{top:50%}
.step li:last-child::before,.step li:last-child::after{bottom:50%}
.step li:only-child::before,.step li:only-child::after{display:none}
.step:first-child li::before,.step:last-child li::after{display:none}
.card{display:block;position:relative;width:100%;border:1px solid var(--line);
border-top:4px solid currentColor;border-radius:8px;padding:8px 10px;background:var(--back);
font-size:13px;line-height:1.4;min-width:0}
.card:hover{text-decoration:none;background:var(--soft)}
.card>span{display:block;color:var(--front)}
.card .head{display:flex;justify-content:space-between;gap:6px;color:inherit;font-size:14px;
margin-bottom:2px}
.card .by{color:var(--dim);font-size:12px;margin-top:3px}
.card.loose{border-style:dashed;border-top-style:dashed}
.symbol{font-weight:700}
.card::before,.card::after{content:"";position:absolute;top:50%;width:17px;height:2px;
background:var(--line)}
.card::before{content:"▸";left:-18px;height:20px;line-height:20px;margin-top:-9px;text-align:right;
color:var(--dim);font-size:14px;
background:linear-gradient(var(--line),var(--line)) left center/11px 2px no-repeat}
.card::after{right:-18px}
.step:first-child .card::before,.step:last-child .card::after{display:none}
.plain{list-style:none;margin-top:8px;margin-bottom:8px;padding:0}
.plain li{padding:4px 0}
.rules td:first-child,.rules td:nth-child(2),.rules td:last-child{white-space:nowrap}
.statements time,.statements td:last-child{white-space:nowrap}
.claims{margin-top:36px;border:2px dashed var(--unsure);border-radius:10px;padding:4px 20px 16px}
.claims h2{margin-top:14px;color:var(--unsure)}
details:target{outline:2px solid var(--link)}
@media (max-width:1060px){
.statements time,.statements td:last-child{white-space:normal}
.chain{flex-direction:column;gap:30px;padding-top:6px}
.step ul{flex-direction:row;gap:12px;flex-wrap:wrap}
.step li{flex:1 1 180px;padding:0;align-items:stretch}
.step ul:has(>li:only-child)>li{flex:1 1 auto}
.step li::before,.step li::after,.card::before,.card::after{display:none}
.caption{top:-25px;left:0;right:0;text-align:center}
.caption::before{content:"↓ "}
.step:first-child .caption{display:none}
}
@media print{.claims,.verdict,.card{break-inside:avoid}}
"""
