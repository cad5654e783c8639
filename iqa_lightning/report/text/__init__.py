"""Numbers as text: terminal, Markdown, LaTeX."""
