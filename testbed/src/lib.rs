//! A whole SeSeMI on one machine, on a simulated TEE; nothing depends on it.
