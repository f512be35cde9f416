"""The look of the report: one style sheet for desktop, phone and paper, light and dark."""

CSS = """
:root{color-scheme:light dark;--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--ink:#1b2026;--soft:#5b6570;--rule:#d9dee4;--page:#ffffff;--card:#f5f7f9;--note:#fdf3dc;
--c1:#0067a8;--c2:#c94f00;--c3:#00805f;--c4:#a8479a;--c5:#8a6a00}
@media screen and (prefers-color-scheme:dark){:root{
--ink:#e7ebef;--soft:#a3adb8;--rule:#363e47;--page:#14181c;--card:#1d2329;--note:#37301c;
--c1:#5ab4ee;--c2:#ff9350;--c3:#3ccb9f;--c4:#e19bd3;--c5:#e5c04a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 var(--font);overflow-wrap:anywhere}
main,header,nav{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
h1{font-size:17px;font-weight:600;margin:0;color:var(--soft)}
h2{font-size:22px;line-height:1.25;margin:0 0 10px;letter-spacing:-.01em}
h3{font-size:15px;margin:0 0 6px;font-weight:600}
p{margin:0 0 10px;max-width:72ch}
section{padding:30px 0 14px;border-top:1px solid var(--rule);margin-top:22px}
.big{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 18px;margin:14px 0 2px}
.big b{font-size:clamp(46px,9vw,72px);line-height:1.05;letter-spacing:-.03em;font-weight:650}
.big span{font-size:19px;max-width:60ch;line-height:1.35}
.range{height:44px;max-width:520px;margin:8px 0 4px}
.range svg{width:100%;height:44px;overflow:visible}
.lead{font-size:17px;max-width:68ch}
nav{padding-top:10px}
nav a{display:inline-block;margin:0 16px 4px 0;color:var(--c1);text-decoration:none;font-size:15px}
nav a:hover{text-decoration:underline}
.soft,figcaption,small{color:var(--soft)}
small,figcaption,figcaption p{font-size:13.5px;line-height:1.45}
small{white-space:nowrap}
.note{background:var(--note);border-radius:8px;padding:10px 14px;max-width:none}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:28px 40px;margin:14px 0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:6px 40px;align-items:start}
.pair>div{min-width:0}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto;font-family:var(--font)}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.drawing svg{max-width:calc(var(--w)*1.45)}
.wide .drawing{overflow-x:auto}
.wide svg{min-width:calc(var(--w)*.74);max-width:calc(var(--w)*1.2)}
/* many classes need more than the column of text */
.broad{width:min(100vw - 40px,1400px);margin-left:calc(50% - min(50vw - 20px,700px))}.broad svg{min-width:var(--w)}
svg.key{display:inline-block;width:22px;height:8px;margin-right:7px;vertical-align:middle}
svg.key path{stroke-width:2.4;fill:none}
.legend{display:flex;flex-wrap:wrap;gap:3px 18px;margin:6px 0;color:var(--ink)}
.legend b{font-weight:600}.legend i{font-style:normal;color:var(--soft);font-variant-numeric:tabular-nums}
.scale{display:inline-block;width:34px;height:14px;border-radius:3px;margin-right:7px;vertical-align:-2px}
.scroll{overflow-x:auto;margin:8px 0 14px}
.tall{max-height:560px;overflow-y:auto}
table{border-collapse:collapse;overflow-wrap:normal;font-size:14.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 18px 5px 0;text-align:right;border-bottom:1px solid var(--rule);vertical-align:baseline}
th{font-weight:600}
tbody th,thead th:first-child{text-align:left;overflow-wrap:normal;min-width:5.5em;max-width:24em}
thead th{color:var(--soft);font-weight:500;position:sticky;top:0;background:var(--page)}
td{white-space:nowrap}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere;padding-right:0}
.facts tbody th{color:var(--soft);font-weight:500;white-space:nowrap}
td small{margin-left:6px}
th small{display:block;font-weight:400;font-family:ui-monospace,Consolas,monospace;font-size:12.5px}
.bar{display:inline-block;height:9px;background:var(--c1);opacity:.55;border-radius:2px;margin-right:8px;min-width:1px}
ul{margin:6px 0 12px;padding-left:20px;max-width:80ch}
.mistakes{display:grid;grid-template-columns:repeat(auto-fill,minmax(var(--least,150px),1fr));gap:24px 22px;
margin-top:14px}
.mistakes .slices{display:grid;grid-template-columns:repeat(3,1fr);gap:6px}
img{display:block;width:100%;max-width:320px;height:auto;border-radius:4px;background:var(--card)}
img.crisp{image-rendering:pixelated}
.mistakes figcaption{margin-top:6px;color:var(--ink)}
.mistakes figcaption .soft{display:block;font-size:12.5px}
.letters{font:13px/1.5 ui-monospace,Consolas,monospace;overflow-wrap:anywhere;margin:0;max-height:14em;overflow-y:auto;
background:var(--card);border-radius:6px;padding:8px 10px}
.evidence{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:26px 30px}
.evidence img{max-width:100%;background:#fff;border-radius:6px}.evidence figcaption{color:var(--ink);margin-top:6px}
.evidence .soft{display:block;font-size:12.5px}
.verdict{color:#fff;border-radius:4px;padding:1px 7px;font-size:12px;letter-spacing:.03em}
.slice figcaption{font-size:11.5px;color:var(--soft);margin-top:2px}
footer{max-width:1080px;margin:26px auto 50px;padding:14px 20px;color:var(--soft);font-size:13.5px}
@media (max-width:480px){main,header,nav{padding-left:16px;padding-right:16px}header{padding-top:24px}
.mistakes{grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--least,140px)),1fr));gap:18px 14px}
th,td{padding-right:13px}table{font-size:14px}td small{display:block;margin:0}
th:last-child,td:last-child{padding-right:4px}#metrics th small{white-space:normal;overflow-wrap:anywhere}}
@media print{body{font-size:10.5pt}nav{display:none}main,header{max-width:none;padding:0}
section{padding:14px 0 4px;margin-top:10px}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}
.tall{max-height:none}.scroll,.wide .drawing{overflow:visible}.wide svg{min-width:0}.broad{width:auto;margin:0}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}thead th{position:static}
.figures,.pair{grid-template-columns:1fr 1fr;gap:14px 26px}.figures p,.pair p{font-size:9.5pt}table{font-size:9pt}
th,td{padding:2.5px 12px 2.5px 0}.mistakes{grid-template-columns:repeat(6,1fr)}
.mistakes.large{grid-template-columns:1fr 1fr 1fr}}
"""
