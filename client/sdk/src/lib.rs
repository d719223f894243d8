//! The client of SeSeMI: verify KeyService, register, grant, seal, invoke, open.
