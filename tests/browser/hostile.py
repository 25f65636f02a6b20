"""A text that tries to be markup, a script, a link and a formula at once."""

HOSTILE = (
    "<img src=x onerror=\"window.hacked='img'\"><script>window.hacked='script'</script>"
    "[x](javascript:window.hacked=1) $x$"
)
MARK = "<img src=x onerror="
"""What of it must be readable on a page, letter by letter."""
