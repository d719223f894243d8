//! Async I/O that trusted and client code share: the attested channel and the model store.
