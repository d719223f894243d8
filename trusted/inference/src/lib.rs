//! Engine → Model → Session: one module per inference engine, loading from memory only.
