"""Pictures of a search as a whole: facts that stand in the report, and the SVG that draws them. Pure."""
