//! Every label of the key schedule and of the associated data, and nothing else.
//!
//! A label names one use of one key. Two labels never are a prefix of each other inside the same
//! construct, because each is either a length-prefixed CBOR text or followed by a zero byte. A
//! change of any format below changes its label's number.

/// First element of a request's external associated data, and `SuppPubInfo.other` of its key.
pub(crate) const REQUEST: &str = "sesemi/request/1";
/// The same for a response.
pub(crate) const RESPONSE: &str = "sesemi/response/1";
/// First element of the HKDF info that derives a [`crate::ResponseKey`] from a request.
pub(crate) const RESPONSE_KEY: &str = "sesemi/response-key/1";
/// Start of the associated data of a model artifact; a zero byte follows.
pub(crate) const MODEL: &str = "sesemi/model/1";
/// First element of a record's associated data and of the HKDF info of its key.
pub(crate) const RECORD: &str = "sesemi/record/1";

/// HKDF salt that binds a [`crate::SealingKey`] to what is measured beside the code.
pub(crate) const BOUND_SEALING_KEY: &str = "sesemi/bound-sealing-key/1";

/// First line of a key file, by the type of the key in it.
pub(crate) const MODEL_KEY_FILE: &str = "sesemi-model-key-1";
/// See [`MODEL_KEY_FILE`].
pub(crate) const REQUEST_KEY_FILE: &str = "sesemi-request-key-1";
