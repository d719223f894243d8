//! Each check in plain words: why it matters, who can change it, and how.

use attestation::CheckName;

/// Who can change what a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// Whoever hands the evidence over, with its endorsements.
    Presenter,
    /// Who runs the machine and its firmware.
    Operator,
    /// Who builds and configures the code in the enclave.
    Author,
    /// You, with your policy and what you ask for.
    RelyingParty,
}

impl Party {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Presenter => "whoever hands the evidence over",
            Self::Operator => "the platform's operator",
            Self::Author => "the enclave's author",
            Self::RelyingParty => "you, the relying party",
        }
    }
}

/// What is the same for every piece of evidence that fails a check.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    pub why: &'static str,
    pub by: Party,
    pub change: &'static str,
}

const fn because(why: &'static str, by: Party, change: &'static str) -> Reason {
    Reason { why, by, change }
}

/// The reason of a check. Exhaustive: a new check does not compile until it is explained.
#[must_use]
#[expect(clippy::too_many_lines, reason = "one arm for each check")]
pub const fn reason(name: CheckName) -> Reason {
    use CheckName as Check;
    use Party::{Author, Operator, Presenter, RelyingParty};
    match name {
        Check::TlsVersion => because(
            "older versions of TLS can be downgraded and do not bind evidence to a channel",
            Operator,
            "serve TLS 1.3",
        ),
        Check::KeyExchange => because(
            "recorded traffic without a post-quantum key exchange can be opened later",
            Operator,
            "offer X25519MLKEM768",
        ),
        Check::ApplicationProtocol => because(
            "without an agreed protocol a channel could be spliced into another service's",
            Operator,
            "connect to the right port, with this protocol's name",
        ),
        Check::FullHandshake => because(
            "a resumed session would skip attestation",
            Operator,
            "turn session tickets off",
        ),
        Check::CertificateTee => because(
            "the policy does not name this kind of TEE for certificates",
            RelyingParty,
            "name it in the policy, if you trust its vendor",
        ),
        Check::CertificateEvidence => because(
            "the certificate's evidence is not the vendor's: anybody could have written it",
            Presenter,
            "present a certificate made inside a TEE, with current endorsements",
        ),
        Check::CertificateKey => because(
            "the evidence is about another key, so whoever holds this one need not be in a TEE",
            Presenter,
            "make key and evidence together, inside the enclave",
        ),
        Check::MeasuredConfig => because(
            "the configuration is not the one that the evidence covers",
            Author,
            "present the configuration that the enclave started with",
        ),
        Check::TeeAccepted => because(
            "each kind of TEE means trust in another vendor, and the policy does not name this one",
            RelyingParty,
            "name it in the policy, if you trust its vendor",
        ),
        Check::EvidenceFormat => because(
            "bytes that are not exactly one piece of evidence can mean different things to \
             different readers",
            Presenter,
            "hand over the whole evidence, unchanged, and nothing else; and check --tee",
        ),
        Check::EndorsementsPresent => because(
            "without the vendor's certificates and judgements nobody can tell who signed",
            Presenter,
            "fetch them from the vendor's service (Intel PCS, AMD KDS) and hand them over",
        ),
        Check::EndorsementsFormat => because(
            "endorsements that cannot be read prove nothing",
            Presenter,
            "fetch them anew from the vendor's service",
        ),
        Check::RootPinned => because(
            "a root that is not the vendor's can sign anything: its name is only a name",
            Presenter,
            "hand over the chain that the vendor publishes",
        ),
        Check::CertificateChain => because(
            "a broken, expired or not yet valid certificate does not vouch for the signing key",
            Presenter,
            "hand over the right chain; if it has expired, fetch it anew, or collect new evidence",
        ),
        Check::Revocation => because(
            "the vendor took back its trust in a key, or does not say that it did not",
            Operator,
            "use a machine whose keys are not revoked; hand over current revocation lists",
        ),
        Check::EndorsementsCurrent => because(
            "old endorsements hide what the vendor learned since, such as broken firmware",
            Presenter,
            "fetch endorsements that are valid now, or give the right time with --at",
        ),
        Check::EndorsementsNotOlder => because(
            "newer endorsements were seen before: going back hides what the vendor learned since",
            Presenter,
            "fetch current endorsements",
        ),
        Check::EndorsementsMatch => because(
            "endorsements of another platform say nothing about this one",
            Presenter,
            "fetch the endorsements of this very platform and firmware",
        ),
        Check::TcbInfo => because(
            "without the vendor's signed list of patch levels, or with none that fits, nobody \
             knows what is open on this platform",
            Operator,
            "update firmware and microcode; hand over the vendor's current list, unchanged",
        ),
        Check::QeIdentity => because(
            "the enclave that signed is not known to be the vendor's quoting enclave",
            Operator,
            "use the vendor's current quoting enclave; hand over its identity, unchanged",
        ),
        Check::AttestationKey => because(
            "the key that signed the evidence is not certified for this platform",
            Presenter,
            "hand over the evidence unchanged",
        ),
        Check::Signature => because(
            "the evidence was changed, or was never signed by this key",
            Presenter,
            "hand over the evidence unchanged, with the certificate of the key that signed it",
        ),
        Check::RuntimeClaims => because(
            "the hardware did not vouch for the TPM's key, so the TPM could be anybody's",
            Presenter,
            "hand over the HCL report and the TPM quote of the same machine and boot",
        ),
        Check::TpmQuote => because(
            "the quote is not signed by the TPM that the hardware vouched for",
            Presenter,
            "hand over the quote unchanged, of the same machine and boot",
        ),
        Check::PcrDigest => because(
            "the register values are not those that the TPM signed",
            Presenter,
            "hand over the values that were read together with the quote",
        ),
        Check::KeyHash => because(
            "the evidence is about another key, so whoever holds this certificate's need not be \
             in a TEE",
            Author,
            "make key and evidence together, inside the enclave",
        ),
        Check::CertificateSignature => because(
            "a certificate that its own key did not sign can be put together by anybody",
            Presenter,
            "hand over the certificate unchanged",
        ),
        Check::EvidenceGenuine => because(
            "evidence that is not genuine proves nothing, whatever it says",
            Presenter,
            "see the check that failed first",
        ),
        Check::ReportData => because(
            "the evidence was made for another purpose, or is a copy of older evidence",
            Presenter,
            "have evidence made over the value that you asked for",
        ),
        Check::Nonce => because(
            "without your nonce in it the evidence can be a copy of older evidence",
            Presenter,
            "have evidence made over your nonce; for kinds that have none, use --report-data",
        ),
        Check::Freshness => because(
            "old evidence says how things were then; what was attested may be gone",
            Presenter,
            "have new evidence made, or give the time at which it was made with --at",
        ),
        Check::NotDebug => because(
            "in debug mode the host can read and change the enclave's memory: nothing is secret",
            Author,
            "build and start it for production",
        ),
        Check::NotMigratable => because(
            "whoever may migrate it decides on which machine, and under whose eyes, it runs",
            Author,
            "start it without a migration agent",
        ),
        Check::ServiceTd => because(
            "a service TD may act on this TD's memory, so it belongs to what you must trust",
            Operator,
            "start the TD without service TDs",
        ),
        Check::SeptVeDisable => because(
            "the host can take pages away and watch the TD handle the faults",
            Author,
            "start the TD with SEPT_VE_DISABLE, which current guests and hosts do",
        ),
        Check::ReservedAttributes => because(
            "nobody knows yet what these bits will mean",
            Operator,
            "start it without them; newer verifiers may know them",
        ),
        Check::Vmpl => because(
            "software at a more privileged level of the same guest can rule the one that asked",
            Author,
            "collect evidence at VMPL 0; under a paravisor, name its level and measure it",
        ),
        Check::GuestPolicy => because(
            "the guest's policy is not as AMD specifies it: nobody knows what it allows the host",
            Author,
            "start the guest with a policy of the form that is specified",
        ),
        Check::MinimumAbi => because(
            "the guest allows firmware older than your policy wants",
            Author,
            "raise the ABI version in the guest's policy",
        ),
        Check::SigningKey => because(
            "a VLEK is the cloud provider's: it stands for any of its machines, not for one chip",
            Operator,
            "sign reports with the chip's own key (VCEK)",
        ),
        Check::ChipNotMasked => because(
            "with the chip's identity masked nobody can tell on which machine this runs, nor \
             compare it with the certificate",
            Operator,
            "unmask the chip key",
        ),
        Check::SecurityVersion => because(
            "older versions of this code have faults that their author has since corrected",
            Author,
            "run the current version",
        ),
        Check::TcbStatus => because(
            "the vendor says that known weaknesses are open on this platform",
            Operator,
            "update firmware, microcode and configuration as the vendor's advisories say",
        ),
        Check::MinimumTcb => because(
            "the platform's firmware or microcode is older than your policy wants",
            Operator,
            "update firmware and microcode, and commit them",
        ),
        Check::TcbEvaluation => because(
            "the vendor's judgement is older than your policy wants, and may not know of newer \
             weaknesses",
            Presenter,
            "fetch current endorsements",
        ),
        Check::Advisories => because(
            "a weakness that your policy does not accept is open on this platform",
            Operator,
            "apply what the advisory asks for",
        ),
        Check::DynamicPlatform => because(
            "processors may be added to the platform after it was certified",
            Operator,
            "use a platform with one package, or one that is registered as static",
        ),
        Check::CachedKeys => because(
            "the vendor keeps a copy of the platform's keys",
            Operator,
            "register the platform without key caching",
        ),
        Check::SimultaneousMultithreading => because(
            "sibling threads share caches: code on one can learn of the other",
            Operator,
            "turn SMT off",
        ),
        Check::AliasCheck => because(
            "memory modules that lie about their size can alias encrypted memory (BadRAM)",
            Operator,
            "update the firmware to one that looks for aliases at boot",
        ),
        Check::Platform => because(
            "the policy lists machines, and this is none of them",
            Operator,
            "run on a machine of the list",
        ),
        Check::Measurement => because(
            "the measurement stands for the code: this is not code that your policy names",
            Author,
            "run the code whose measurement you expect; or review this one and add it",
        ),
        Check::HostConfig => because(
            "what was given to it at start is not what your policy names",
            Operator,
            "start it with the configuration that you expect",
        ),
        Check::IdKeyDigest => because(
            "the guest was not signed by the key that your policy names",
            Author,
            "sign the guest's identity block with that key",
        ),
        Check::Pcrs => because(
            "a register holds another value than your policy names: something else was started",
            Author,
            "boot what you expect; or review what was booted and add its value",
        ),
        Check::SecureBoot => because(
            "without secure boot the machine may have started software that nobody signed",
            Operator,
            "turn secure boot on",
        ),
        Check::GpuMeasurements => because(
            "the GPU's firmware was measured, but is not known to be the vendor's",
            RelyingParty,
            "compare the measurements with NVIDIA's reference values (RIM)",
        ),
        Check::SameEnclave => because(
            "certificate and fresh evidence come from different enclaves: one was borrowed",
            Presenter,
            "present both from the enclave that you talk to",
        ),
        Check::Enclave => because(
            "the policy pins enclave ids, and this is none of them",
            RelyingParty,
            "review code and configuration, and add its id; give --measured-config here",
        ),
    }
}
