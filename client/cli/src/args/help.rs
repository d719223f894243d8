//! Texts below the commands' help: examples that can be pasted.

pub(super) const LONG_ABOUT: &str = "\
Encrypted inference on a platform that you do not trust.

Owners publish sealed models and grant their use; users seal requests and open answers. KeyService \
holds the keys inside an attested enclave (E_K) and releases them only to enclaves (E_S) that owner \
and user both named. Everything between sees ciphertext only.

Start with `sesemi identity new`, then `sesemi verify keyservice`. docs/cli.md walks through both \
roles.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  ok
  1  usage: the command line or the profile is wrong
  2  caller: a file or a request of yours is wrong
  3  denied: not granted, or KeyService was not accepted
  4  service: something out there failed; --json says whether a retry makes sense

Examples:
  sesemi identity new --out alice.pem
  sesemi verify keyservice
  sesemi infer digits --input seven.png --preprocess digits-8x8";

pub(super) const IDENTITY: &str = "\
Examples:
  sesemi identity new --out alice.pem
  sesemi identity show";

pub(super) const IDENTITY_NEW: &str = "\
The principal id is the SHA-256 of the public key. Keep the file: who has it is you; without it
your models, grants and request keys cannot be reached. It is never overwritten.

Examples:
  sesemi identity new
  sesemi identity new --out alice.pem --json";

pub(super) const IDENTITY_SHOW: &str = "\
Examples:
  sesemi identity show
  sesemi identity show --identity alice.pem --json";

pub(super) const MODEL: &str = "\
Examples:
  sesemi model publish digits.onnx --model digits \\
      --example-input digits.input.json --example-output digits.expected.json
  sesemi model versions digits";

pub(super) const MODEL_PACK: &str = "\
The engine may compute a model silently wrong, so a package holds an example that pack time checks.
The package is not encrypted yet: keep it where you keep the model.

Examples:
  sesemi model pack digits.onnx -o digits.package \\
      --example-input digits.input.json --example-output digits.expected.json
  sesemi model pack net.onnx --example-input x=in.npy --example-output y=out.npy
  sesemi model pack net.onnx --allow-unchecked";

pub(super) const MODEL_PUSH: &str = "\
The model key is drawn here and stays beside the identity (mode 0600); the store gets ciphertext.

Examples:
  sesemi model push digits.package --model digits
  sesemi model push digits.package --model digits --version 2 --store file:///srv/models
  sesemi model push digits.package --model digits --store s3://bucket/models";

pub(super) const MODEL_REGISTER: &str = "\
Examples:
  sesemi model register digits
  sesemi model register digits --version 2";

pub(super) const MODEL_PUBLISH: &str = "\
Examples:
  sesemi model publish digits.onnx --model digits \\
      --example-input digits.input.json --example-output digits.expected.json
  sesemi model publish net.onnx --model net --allow-unchecked --version 3";

pub(super) const MODEL_LS: &str = "\
Examples:
  sesemi model ls
  sesemi model ls --json";

pub(super) const MODEL_VERSIONS: &str = "\
Examples:
  sesemi model versions digits";

pub(super) const MODEL_INSPECT: &str = "\
Examples:
  sesemi model inspect digits.package";

pub(super) const GRANT: &str = "\
Examples:
  sesemi grant add digits --user alice
  sesemi grant ls digits
  sesemi grant rm digits --user alice";

pub(super) const GRANT_ADD: &str = "\
The user must also register a request key for the same model and enclave (`sesemi key register`).

Examples:
  sesemi grant add digits --user alice
  sesemi grant add digits --user 64-HEX-DIGITS --enclave 96-HEX-DIGITS";

pub(super) const GRANT_RM: &str = "\
Instances may use what they hold until their lease ends; the answer says how long at most.

Examples:
  sesemi grant rm digits --user alice";

pub(super) const GRANT_LS: &str = "\
Examples:
  sesemi grant ls digits
  sesemi grant ls digits --json";

pub(super) const KEY: &str = "\
Examples:
  sesemi key register digits --owner hospital
  sesemi key ls
  sesemi key rm digits";

pub(super) const KEY_REGISTER: &str = "\
The key is drawn here and stays beside the identity (mode 0600). Naming the owner makes sure that
nobody puts another model under the same name.

Examples:
  sesemi key register digits --owner hospital
  sesemi key register digits --owner 64-HEX-DIGITS --enclave 96-HEX-DIGITS
  sesemi key register digits --owner hospital --rotate";

pub(super) const KEY_LS: &str = "\
Examples:
  sesemi key ls
  sesemi key ls --json";

pub(super) const KEY_RM: &str = "\
Examples:
  sesemi key rm digits";

pub(super) const INFER: &str = "\
Inputs in JSON: {\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}
The path says how much had to be done: cold (new instance), warm (instance without keys or model),
hot (all there). Path and phases are the host's word: for speed and cost, not for trust.

Examples:
  sesemi infer breast-cancer --input patient.json
  sesemi infer digits --input seven.png --preprocess digits-8x8
  sesemi infer efficientnet-lite0 --input cat.jpg --preprocess efficientnet-lite --labels imagenet.txt
  sesemi infer net --input x=a.npy --input mask=b.npy --save out
  sesemi infer digits --input seven.json --count 100 --concurrency 4 --json";

pub(super) const VERIFY: &str = "\
Examples:
  sesemi verify keyservice";

pub(super) const VERIFY_KEYSERVICE: &str = "\
Exits with 3 when KeyService is not the pinned enclave, cannot prove it, or was rolled back to an
older state than this client saw before. Works without an identity.

Examples:
  sesemi verify keyservice
  sesemi verify keyservice --json";

pub(super) const EVIDENCE: &str = "\
Examples:
  sesemi evidence verify --tee snp --evidence report.bin --vek vcek.der --ca chain.pem
  sesemi evidence explain --tee sgx --evidence quote.bin --collateral collateral.json";

pub(super) const EVIDENCE_VERIFY: &str = "\
Nothing is fetched: the vendors' roots are in this program, all else comes from the files. Needs no
profile and no identity.

Without --policy: any measurement; a platform that is up to date or needs hardening in software
only; Intel platforms with several packages, cached keys or SMT are accepted; no debug mode, no
migration, no service TD; SEV-SNP at VMPL 0, signed by a VCEK, on a chip that is not masked. What
--report-data and --nonce do not ask for shows as unchecked: evidence alone does not say that it is
fresh, or whose it is.

With --json: {\"verdict\": \"accept\"|\"reject\", \"tee\", \"checks\": [{\"name\", \"status\",
\"expected\", \"got\"}], \"measurement\", \"e_s\"}. The measurement is what the evidence says, also
if it is rejected, and null if it cannot be read; e_s is null unless it is accepted and
--measured-config is given.

Exit codes of this command:
  0  accepted
  1  the command line or a file named on it is wrong
  2  rejected: the first FAIL says why; malformed evidence is rejected, too

Examples:
  sesemi evidence verify --tee sgx --evidence quote.bin --collateral collateral.json
  sesemi evidence verify --tee tdx --evidence quote.bin --collateral collateral.json \\
      --report-data 48656c6c6f --allow-tcb-status OutOfDate --at 1751000000 --json
  sesemi evidence verify --tee snp --evidence report.bin --vek vcek.der --ca chain.pem
  sesemi evidence verify --tee nitro --evidence doc.cose --nonce 00ff --at 1766668537
  sesemi evidence verify --tee az-snp --evidence evidence.json --ca chain.pem
  sesemi evidence verify --tee ratls --evidence cert.pem --collateral collateral.json
  sesemi evidence verify --tee nvidia --evidence report.hex --ca chain.pem";

pub(super) const EVIDENCE_EXPLAIN: &str = "\
Says what the evidence is, the verdict, and for each check that failed: why it matters, who can
change it, and the line of a policy that would allow it, with what is risked. Exit codes as of
`sesemi evidence verify`.

Examples:
  sesemi evidence explain --tee tdx --evidence quote.bin --collateral collateral.json
  sesemi evidence explain --tee snp --evidence report.bin --vek vlek.der --ca chain.pem \\
      --policy policy.toml";

pub(super) const AUDIT: &str = "\
Examples:
  sesemi audit
  sesemi audit --model digits --last 20 --json";

pub(super) const STATUS: &str = "\
Exits with the class of the worst part.

Examples:
  sesemi status
  sesemi status --json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  sesemi completions bash > ~/.local/share/bash-completion/completions/sesemi
  sesemi completions zsh > ~/.zfunc/_sesemi
  sesemi completions fish > ~/.config/fish/completions/sesemi.fish";
