//! Secret types, sealing and opening, the key schedule. No I/O beyond Read and Write.
