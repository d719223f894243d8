//! OpenWhisk's REST API: the bodies that the embedded platform serves and FnPacker sends.
