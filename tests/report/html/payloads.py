"""Texts that would run a script or leave their place if a page did not escape them."""

from __future__ import annotations

SET = "window.pwned=1"
PAYLOADS = (
    f"<script>{SET}</script>",
    f"</script><script>{SET}</script>",
    f"</SCRIPT ><script>{SET}</script>",
    f"<!--<script>{SET}//-->",
    f"--><script>{SET}</script>",
    f"<img src=x onerror={SET}>",
    f'"><img src=x onerror={SET}>',
    f"'><svg onload={SET}>",
    f"<svg/onload={SET}>",
    f"<svg><script>{SET}</script></svg>",
    f"<math><mtext></math><img src=x onerror={SET}>",
    f"<iframe srcdoc='<script>parent.{SET}</script>'></iframe>",
    f"<iframe src=javascript:{SET}></iframe>",
    f"<a href=javascript:{SET}>x</a>",
    f"<body onload={SET}>",
    f"<details open ontoggle={SET}>",
    f"<input autofocus onfocus={SET}>",
    f"<video><source onerror={SET}></video>",
    f"<object data=javascript:{SET}></object>",
    f"<meta http-equiv=refresh content='0;url=javascript:{SET}'>",
    f"<base href=javascript:{SET}//>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    f"<style>@import 'https://example.invalid';</style><script>{SET}</script>",
    f"</title><script>{SET}</script>",
    f"</textarea><script>{SET}</script>",
    f"</pre><script>{SET}</script>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}`${window.pwned=1}`",
    f'";{SET};//',
    f"\u2028{SET}\u2029</script >",
    f"&lt;script&gt;{SET}&lt;/script&gt;&#60;script>",
    '=HYPERLINK("https://example.invalid")',
)
