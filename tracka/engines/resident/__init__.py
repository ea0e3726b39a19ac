"""An engine that keeps policy and simulators resident; these modules run in its own processes."""
