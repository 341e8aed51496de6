"""The comparison report: an info object first, then HTML, Markdown or JSON."""
