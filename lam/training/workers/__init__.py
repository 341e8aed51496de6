"""Several processes that train one model: who they are, what each computes, and how they are started."""
