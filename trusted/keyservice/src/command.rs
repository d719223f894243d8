//! One call, complete: what is asked, the body, and the witness of who asks.

use protocol::keyservice::{
    Grant, GrantList, GrantTerms, LogPage, ModelList, ModelRecord, RegisterModel,
    RegisterRequestKey, Release, ReleaseRequest, RequestKeyList, RequestKeyRecord, Revoked, Status,
};
use protocol::{EnclaveId, ModelId, ModelVersion, PrincipalId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::{Caller, Instance, Page, Principal};
use crate::routes::Route;

/// A call that changes something durable, be it only the log.
#[derive(Debug)]
pub enum Change {
    RegisterModel {
        owner: Principal,
        model: ModelId,
        version: ModelVersion,
        registration: RegisterModel,
    },
    Grant {
        owner: Principal,
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
        terms: GrantTerms,
    },
    Revoke {
        owner: Principal,
        model: ModelId,
        user: PrincipalId,
        enclave: EnclaveId,
    },
    RegisterRequestKey {
        user: Principal,
        model: ModelId,
        enclave: EnclaveId,
        registration: RegisterRequestKey,
    },
    DropRequestKey {
        user: Principal,
        model: ModelId,
        enclave: EnclaveId,
    },
    Release {
        instance: Instance,
        request: ReleaseRequest,
    },
}

/// A call that changes nothing.
#[derive(Debug)]
pub enum Question {
    Status,
    ListModels {
        owner: Principal,
        page: Page<(ModelId, ModelVersion)>,
    },
    Versions {
        owner: Principal,
        model: ModelId,
        page: Page<ModelVersion>,
    },
    Grants {
        owner: Principal,
        model: ModelId,
        page: Page<(PrincipalId, EnclaveId)>,
    },
    RequestKeys {
        user: Principal,
        page: Page<(ModelId, EnclaveId)>,
    },
    Log {
        principal: Principal,
        page: Page<u64>,
    },
}

/// Either.
#[derive(Debug)]
pub enum Command {
    Change(Change),
    Question(Question),
}

/// What a call is answered with. Release holds keys: its bytes are overwritten after they are sent.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Status(Status),
    Model(ModelRecord),
    Models(ModelList),
    Grant(Grant),
    Grants(GrantList),
    Revoked(Revoked),
    RequestKey(RequestKeyRecord),
    RequestKeys(RequestKeyList),
    Release(Release),
    Log(LogPage),
}

/// Why a request is not a call.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("this operation is for owners and users, who prove an identity key")]
    NotAPrincipal,
    #[error("this operation is for attested instances")]
    NotAnInstance,
    #[error("the body is not valid: {0}")]
    Body(serde_json::Error),
    #[error("this operation has no body")]
    UnexpectedBody,
}

impl Command {
    /// Puts together what was asked, by whom, with which body. Who may not call learns nothing
    /// about the body.
    pub fn of(route: Route, body: &[u8], caller: &Caller) -> Result<Self, CommandError> {
        match (route, caller) {
            (Route::Status, _) => empty(body).map(|()| Self::Question(Question::Status)),
            (Route::Release, Caller::Principal(_)) => Err(CommandError::NotAnInstance),
            (Route::Release, Caller::Instance(instance)) => {
                let (instance, request) = (instance.clone(), json(body)?);
                Ok(Self::Change(Change::Release { instance, request }))
            }
            (_, Caller::Instance(_)) => Err(CommandError::NotAPrincipal),
            (route, Caller::Principal(who)) => Self::of_principal(route, body, *who),
        }
    }

    fn of_principal(route: Route, body: &[u8], who: Principal) -> Result<Self, CommandError> {
        let change = match route {
            Route::RegisterModel { model, version } => {
                let registration = json(body)?;
                Change::RegisterModel {
                    owner: who,
                    model,
                    version,
                    registration,
                }
            }
            Route::RegisterRequestKey { model, enclave } => {
                let registration = json(body)?;
                Change::RegisterRequestKey {
                    user: who,
                    model,
                    enclave,
                    registration,
                }
            }
            Route::Grant {
                model,
                user,
                enclave,
            } => {
                let terms = json(body)?;
                Change::Grant {
                    owner: who,
                    model,
                    user,
                    enclave,
                    terms,
                }
            }
            Route::Revoke {
                model,
                user,
                enclave,
            } => {
                empty(body)?;
                Change::Revoke {
                    owner: who,
                    model,
                    user,
                    enclave,
                }
            }
            Route::DropRequestKey { model, enclave } => {
                empty(body)?;
                Change::DropRequestKey {
                    user: who,
                    model,
                    enclave,
                }
            }
            route => {
                empty(body)?;
                return question(route, who).map(Self::Question);
            }
        };
        Ok(Self::Change(change))
    }
}

fn question(route: Route, who: Principal) -> Result<Question, CommandError> {
    match route {
        Route::ListModels(page) => Ok(Question::ListModels { owner: who, page }),
        Route::Versions { model, page } => Ok(Question::Versions {
            owner: who,
            model,
            page,
        }),
        Route::Grants { model, page } => Ok(Question::Grants {
            owner: who,
            model,
            page,
        }),
        Route::RequestKeys(page) => Ok(Question::RequestKeys { user: who, page }),
        Route::Log(page) => Ok(Question::Log {
            principal: who,
            page,
        }),
        Route::Status => Ok(Question::Status),
        Route::Release
        | Route::RegisterModel { .. }
        | Route::RegisterRequestKey { .. }
        | Route::Grant { .. }
        | Route::Revoke { .. }
        | Route::DropRequestKey { .. } => Err(CommandError::NotAnInstance),
    }
}

fn empty(body: &[u8]) -> Result<(), CommandError> {
    if body.is_empty() {
        Ok(())
    } else {
        Err(CommandError::UnexpectedBody)
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(body).map_err(CommandError::Body)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::routes::{Access, ROUTES, parse};

    fn instance() -> Caller {
        Caller::Instance(Instance::for_test(EnclaveId::new([1; 48])))
    }

    const PRINCIPAL: Caller = Caller::Principal(Principal::for_test(PrincipalId::new([2; 32])));

    fn route(spec: &crate::routes::RouteSpec) -> Route {
        let path = spec
            .path
            .replace("{model}", "m")
            .replace("{version}", "1")
            .replace("{user}", &"ab".repeat(32))
            .replace("{enclave}", &"cd".repeat(48));
        parse(&spec.method, &path, None).unwrap().1
    }

    fn body(spec: &crate::routes::RouteSpec) -> String {
        let (digest, key) = ("ab".repeat(32), "A".repeat(43) + "=");
        match spec.request {
            Some("RegisterModel") => format!(r#"{{"digest":"{digest}","key":"{key}"}}"#),
            Some("RegisterRequestKey") => format!(r#"{{"owner":"{digest}","key":"{key}"}}"#),
            Some("GrantTerms") => r#"{"policy":"text"}"#.to_owned(),
            Some("ReleaseRequest") => format!(r#"{{"model":"m","user":"{digest}"}}"#),
            _ => String::new(),
        }
    }

    #[test]
    fn only_those_the_table_names_may_call() {
        for spec in ROUTES {
            for (caller, role) in [
                (&instance(), Access::Instance),
                (&PRINCIPAL, Access::Principal),
            ] {
                let command = Command::of(route(spec), body(spec).as_bytes(), caller);
                let allowed = spec.access == Access::Anyone || spec.access == role;
                assert_eq!(command.is_ok(), allowed, "{}: {command:?}", spec.operation);
                // A bad body does not change the answer to who may not call.
                if !allowed {
                    let error = Command::of(route(spec), b"{", caller).unwrap_err();
                    assert!(matches!(
                        error,
                        CommandError::NotAPrincipal | CommandError::NotAnInstance
                    ));
                }
            }
        }
    }

    #[test]
    fn bodies_are_complete_and_nothing_else() {
        for spec in ROUTES {
            let caller = if spec.access == Access::Instance {
                instance()
            } else {
                PRINCIPAL
            };
            let command = |body: &str| Command::of(route(spec), body.as_bytes(), &caller);
            let good = body(spec);
            if spec.request.is_none() {
                assert!(matches!(command("{}"), Err(CommandError::UnexpectedBody)));
                continue;
            }
            let unknown = good.replacen('{', r#"{"extra":1,"#, 1);
            let doubled = format!("{good}{good}");
            // Terms may be empty; nothing else may.
            let empty = if spec.request == Some("GrantTerms") {
                ""
            } else {
                "{}"
            };
            for bad in [
                "",
                empty,
                "[]",
                "null",
                &good[..good.len() - 1],
                &unknown,
                &doubled,
            ] {
                let error = command(bad).unwrap_err();
                assert!(
                    matches!(error, CommandError::Body(_)),
                    "{}: {bad}",
                    spec.operation
                );
            }
        }
    }

    #[test]
    fn an_error_about_a_body_does_not_repeat_the_key() {
        let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE";
        let text = format!(r#"{{"digest":"{}","key":"{key}!"}}"#, "ab".repeat(32));
        let route = parse(&Method::PUT, "/v1/models/m/versions/1", None)
            .unwrap()
            .1;
        let error = Command::of(route, text.as_bytes(), &PRINCIPAL).unwrap_err();
        assert!(!error.to_string().contains(&key[..8]), "{error}");
        let text = format!(r#"{{"digest":"{}","key":7,"{key}":1}}"#, "ab".repeat(32));
        let route = parse(&Method::PUT, "/v1/models/m/versions/1", None)
            .unwrap()
            .1;
        let error = Command::of(route, text.as_bytes(), &PRINCIPAL).unwrap_err();
        assert!(!error.to_string().contains(&key[..8]), "{error}");
    }
}
