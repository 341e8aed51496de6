"""Whether new data are still what a promoted model was chosen on: a two-sample test by video, and what to do."""
