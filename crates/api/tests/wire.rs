//! The JSON of every wire type, by literals: a change that breaks a client breaks one of these.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use gainsay_api::accounts::{Account, AccountKind, AccountRole, Accounts, AccountsQuery, Deposit, Withdraw};
use gainsay_api::claims::{ClaimAccepted, ClaimFilter, ClaimList, ClaimState, ClaimSummary, ClaimView};
use gainsay_api::disputes::{
    DecisionView, DisputeFilter, DisputeList, DisputeState, DisputeSummary, DisputeView, MoveKind, MoveView,
    NodeView, PlaceView, Side, Verdict, VerdictReason, VirtualView,
};
use gainsay_api::embeddings::{Embedding, EmbeddingInput, EmbeddingRequest, EncodingFormat, Usage, Vector};
use gainsay_api::error::{ErrorBody, ErrorCode, ErrorDetail, ErrorKind};
use gainsay_api::events::{EntryView, Event, EventCursor, EventKind, EventsQuery};
use gainsay_api::info::{Health, Info, ParametersView, PricesView};
use gainsay_api::jobs::{Answer, Finality, JobQuery, JobState, JobView, SubmitJob, WaitFor};
use gainsay_api::leases::{Heartbeat, Lease, LeaseRequest, LeaseReturned, Leases, ReturnLease, ReturnReason};
use gainsay_api::models::{ModelList, ModelView};
use gainsay_api::parties::{
    PartyView, RegisterOwner, RegisterSubmitter, Registered, Role, SubmitterRegistered,
};
use gainsay_api::wire::Base64;
use gainsay_commitment::{
    ClaimId, DisputeId, InputCommitment, ModelId, PartyId, Signature, TensorCommitment, TraceRoot,
};
use gainsay_protocol::{JobId, LeaseId, OwnerId, Parameters};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// The value has this JSON, and the JSON this value.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, expected: Value) {
    assert_eq!(serde_json::to_value(&value).unwrap(), expected);
    // Through text: what a client reads is a stream of characters.
    let read: T = serde_json::from_str(&expected.to_string()).unwrap();
    assert_eq!(read, value);
}

/// A field that the type does not have is refused.
#[track_caller]
fn strict<T: Serialize + DeserializeOwned + Debug>(value: T) {
    let mut json = serde_json::to_value(&value).unwrap();
    json["surplus"] = json!(1);
    let refusal = serde_json::from_value::<T>(json).unwrap_err().to_string();
    assert!(refusal.contains("surplus"), "{refusal}");
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn uuid(byte: u8) -> String {
    let b = format!("{byte:02x}");
    format!("{}-{}-{}-{}-{}", b.repeat(4), b.repeat(2), b.repeat(2), b.repeat(2), b.repeat(6))
}

fn party(byte: u8, name: &str) -> PartyView {
    PartyView { id: PartyId::from_bytes([byte; 32]), name: name.into() }
}

fn tensor(byte: u8) -> TensorCommitment {
    TensorCommitment::from_bytes([byte; 32])
}

fn claim_summary() -> ClaimSummary {
    ClaimSummary {
        id: ClaimId::from_bytes([1; 32]),
        job_id: JobId([2; 16]),
        lease_id: LeaseId([3; 16]),
        model: ModelId::from_bytes([4; 32]),
        worker: party(5, "ada"),
        state: ClaimState::Open,
        finality: Finality::Pending,
        accepted_at_ms: 10,
        window_closes_at_ms: 20,
        open_disputes: 1,
    }
}

fn claim_summary_json() -> Value {
    json!({
        "id": hex(1), "job_id": uuid(2), "lease_id": uuid(3), "model": hex(4),
        "worker": {"id": hex(5), "name": "ada"}, "state": "open", "finality": "pending",
        "accepted_at_ms": 10, "window_closes_at_ms": 20, "open_disputes": 1
    })
}

fn merged(mut into: Value, more: Value) -> Value {
    into.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    into
}

#[test]
fn parties() {
    golden(RegisterSubmitter { name: "eve".into() }, json!({"name": "eve"}));
    strict(RegisterSubmitter { name: "eve".into() });
    strict(RegisterOwner { name: "eve".into() });
    let registered =
        SubmitterRegistered { id: OwnerId([7; 16]), name: "eve".into(), api_key: "gs_secret".into() };
    assert!(!format!("{registered:?}").contains("secret"), "a key must not reach a log");
    let json = json!({"id": uuid(7), "name": "eve", "api_key": "gs_secret"});
    golden(registered, json);
    golden(
        Registered {
            id: PartyId::from_bytes([5; 32]),
            name: "ada".into(),
            role: Role::Worker,
            owner: OwnerId([6; 16]),
        },
        json!({"id": hex(5), "name": "ada", "role": "worker", "owner": uuid(6)}),
    );
}

#[test]
fn accounts() {
    let accounts = Accounts::new(vec![
        Account {
            owner: Some(OwnerId([6; 16])),
            name: "ada".into(),
            role: AccountRole::Owner,
            kind: AccountKind::Locked,
            balance: 400_000,
        },
        Account {
            owner: None,
            name: "outside".into(),
            role: AccountRole::System,
            kind: AccountKind::Outside,
            balance: -400_000,
        },
    ]);
    assert_eq!(accounts.balance(OwnerId([6; 16]), AccountKind::Locked), 400_000);
    assert_eq!(accounts.balance(OwnerId([6; 16]), AccountKind::Free), 0);
    golden(
        accounts,
        json!({"accounts": [
            {"owner": uuid(6), "name": "ada", "role": "owner", "kind": "locked", "balance": 400_000},
            {"owner": null, "name": "outside", "role": "system", "kind": "outside", "balance": -400_000}
        ], "sum": 0}),
    );
    let deposit = Deposit { to: OwnerId([6; 16]), amount: 1 << 60 };
    golden(deposit, json!({"to": uuid(6), "amount": "1152921504606846976"}));
    strict(deposit);
    strict(Withdraw { amount: 1 });
    strict(AccountsQuery::default());
}

#[test]
fn integers_travel_as_numbers_up_to_two_to_the_53_and_as_strings_beyond() {
    let exact = 1_i64 << 53;
    for (amount, json) in [
        (0, json!(0)),
        (exact, json!(9_007_199_254_740_992_i64)),
        (exact + 1, json!("9007199254740993")),
        (-exact, json!(-9_007_199_254_740_992_i64)),
        (-exact - 1, json!("-9007199254740993")),
        (i64::MAX, json!("9223372036854775807")),
        (i64::MIN, json!("-9223372036854775808")),
    ] {
        golden(Withdraw { amount }, json!({ "amount": json }));
    }
    let read = |json: Value| serde_json::from_value::<Withdraw>(json!({ "amount": json }));
    assert_eq!(read(json!("12")).unwrap(), Withdraw { amount: 12 });
    for refused in
        [json!(1.5), json!("1.5"), json!(""), json!(u64::MAX), json!("9223372036854775808"), json!(null)]
    {
        assert!(read(refused.clone()).is_err(), "{refused}");
    }
}

#[test]
fn models() {
    let model = ModelView {
        id: ModelId::from_bytes([4; 32]),
        object: "model".into(),
        created: 1_700_000_000,
        owned_by: "gainsay".into(),
        name: "toy".into(),
        arithmetic: "exact-f32/1".into(),
        layers: 8,
        max_sequence: 512,
        weight_bytes: 90_000_000,
        complete: false,
        missing: vec![tensor(9)],
    };
    golden(
        ModelList { object: "list".into(), data: vec![model] },
        json!({"object": "list", "data": [{
            "id": hex(4), "object": "model", "created": 1_700_000_000, "owned_by": "gainsay", "name": "toy",
            "arithmetic": "exact-f32/1", "layers": 8, "max_sequence": 512, "weight_bytes": 90_000_000,
            "complete": false, "missing": [hex(9)]
        }]}),
    );
}

#[test]
fn embedding_requests_read_as_stock_clients_send_them() {
    let read = |json: Value| serde_json::from_value::<EmbeddingRequest>(json).unwrap();
    let request = read(json!({"model": "toy", "input": "a", "encoding_format": "base64", "extra": 1}));
    assert_eq!(request.input, EmbeddingInput::Text("a".into()));
    assert_eq!(request.encoding_format, EncodingFormat::Base64);
    let input = |json: Value| read(json!({"model": "toy", "input": json})).input;
    assert_eq!(input(json!(["a", "b"])), EmbeddingInput::Texts(vec!["a".into(), "b".into()]));
    assert_eq!(input(json!([1, 2])), EmbeddingInput::Tokens(vec![1, 2]));
    assert_eq!(input(json!([[1], [2, 3]])), EmbeddingInput::TokenLists(vec![vec![1], vec![2, 3]]));
    assert!(input(json!([])).is_empty());
    golden(
        EmbeddingRequest {
            model: "toy".into(),
            input: EmbeddingInput::Text("a".into()),
            encoding_format: EncodingFormat::Float,
            dimensions: None,
            user: None,
            max_price: Some(5),
        },
        json!({"model": "toy", "input": "a", "encoding_format": "float", "max_price": 5}),
    );
    for refused in
        [json!({"input": "a"}), json!({"model": "toy"}), json!({"model": "toy", "input": {"a": 1}})]
    {
        assert!(serde_json::from_value::<EmbeddingRequest>(refused.clone()).is_err(), "{refused}");
    }
}

#[test]
fn vectors_keep_every_bit_in_base64_and_every_finite_value_in_json() {
    let values = [1.5, -0.0, f32::from_bits(1), f32::MAX, f32::INFINITY, f32::from_bits(0x7fc0_0000)];
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let base64 = Vector::encode(&values, EncodingFormat::Base64);
    assert_eq!(bits(&base64.decode().unwrap()), bits(&values));
    let text = serde_json::to_string(&Vector::encode(&values, EncodingFormat::Float)).unwrap();
    let read: Vector = serde_json::from_str(&text).unwrap();
    let mut expected = values;
    expected[4] = f32::from_bits(0x7fc0_0000);
    assert_eq!(bits(&read.decode().unwrap()), bits(&expected));
    assert_eq!(Vector::Base64("AAAA".into()).decode(), None, "three bytes are no f32");
    golden(
        Embedding { object: "embedding".into(), index: 1, embedding: Vector::Float(vec![Some(0.5), None]) },
        json!({"object": "embedding", "index": 1, "embedding": [0.5, null]}),
    );
    golden(Usage { prompt_tokens: 3, total_tokens: 3 }, json!({"prompt_tokens": 3, "total_tokens": 3}));
}

#[test]
fn jobs() {
    let submit =
        SubmitJob { model: "toy".into(), input: EmbeddingInput::Tokens(vec![1, 2]), max_price: None };
    golden(submit.clone(), json!({"model": "toy", "input": [1, 2]}));
    strict(submit);
    golden(JobQuery { wait_ms: Some(5), until: WaitFor::Final }, json!({"wait_ms": 5, "until": "final"}));
    golden(
        JobView {
            id: JobId([2; 16]),
            model: ModelId::from_bytes([4; 32]),
            model_name: "toy".into(),
            state: JobState::Claimed,
            sequences: 1,
            tokens: 2,
            rejected_attempts: 0,
            price: 1_020,
            submitted_at_ms: 3,
            answer: Some(Answer {
                claim: ClaimId::from_bytes([1; 32]),
                finality: Finality::Revoked,
                output: Base64(vec![0, 0, 128, 63]),
                rows: 1,
                width: 1,
                window_closes_at_ms: 20,
                generated: None,
            }),
        },
        json!({
            "id": uuid(2), "model": hex(4), "model_name": "toy", "state": "claimed", "sequences": 1, "tokens": 2,
            "rejected_attempts": 0, "price": 1_020, "submitted_at_ms": 3,
            "answer": {"claim": hex(1), "finality": "revoked", "output": "AACAPw==", "rows": 1, "width": 1,
                "window_closes_at_ms": 20}
        }),
    );
}

#[test]
fn leases() {
    let request =
        LeaseRequest { models: vec![ModelId::from_bytes([4; 32])], max: 1, held: vec![LeaseId([3; 16])] };
    golden(request.clone(), json!({"models": [hex(4)], "max": 1, "held": [uuid(3)]}));
    strict(request);
    golden(
        Leases {
            leases: vec![Lease {
                id: LeaseId([3; 16]),
                job_id: JobId([2; 16]),
                model: ModelId::from_bytes([4; 32]),
                job: Base64(vec![1]),
                stream: true,
                price: 5,
                stake: 6,
                heartbeat_by_ms: 7,
                expires_at_ms: 8,
            }],
        },
        json!({"leases": [{"id": uuid(3), "job_id": uuid(2), "model": hex(4), "job": "AQ==", "stream": true, "price": 5, "stake": 6,
            "heartbeat_by_ms": 7, "expires_at_ms": 8}]}),
    );
    let returned = ReturnLease { reason: ReturnReason::TooLarge };
    golden(returned, json!({"reason": "too_large"}));
    strict(returned);
    golden(LeaseReturned { fee: 9 }, json!({"fee": 9}));
    golden(
        Heartbeat { heartbeat_by_ms: 7, expires_at_ms: 8 },
        json!({"heartbeat_by_ms": 7, "expires_at_ms": 8}),
    );
}

#[test]
fn claims() {
    let signature = Signature::from_bytes([8; 64]);
    golden(
        ClaimAccepted {
            id: ClaimId::from_bytes([1; 32]),
            accepted_at_ms: 10,
            window_closes_at_ms: 20,
            worker_allowance_ms: 30,
            challenger_allowance_ms: 40,
            countersignature: signature,
        },
        json!({"id": hex(1), "accepted_at_ms": 10, "window_closes_at_ms": 20, "worker_allowance_ms": 30,
               "challenger_allowance_ms": 40, "countersignature": hex(8).repeat(2)}),
    );
    golden(
        ClaimView {
            summary: claim_summary(),
            input: InputCommitment::from_bytes([6; 32]),
            layers: vec![tensor(7), tensor(8)],
            trace_root: TraceRoot::from_bytes([9; 32]),
            job: Base64(vec![1]),
            signed: Base64(vec![2]),
            countersignature: Some(signature),
            device: Some("cpu".into()),
            disputes: vec![DisputeId::from_bytes([10; 32])],
        },
        merged(
            claim_summary_json(),
            json!({"input": hex(6), "layers": [hex(7), hex(8)], "trace_root": hex(9), "job": "AQ==", "signed": "Ag==",
                "countersignature": hex(8).repeat(2), "device": "cpu", "disputes": [hex(10)]}),
        ),
    );
    golden(
        ClaimList { claims: vec![claim_summary()], more: true },
        json!({"claims": [claim_summary_json()], "more": true}),
    );
    let filter = ClaimFilter { state: Some(ClaimState::Open), limit: Some(7), ..ClaimFilter::default() };
    golden(filter, json!({"state": "open", "limit": 7}));
    strict(filter);
}

#[test]
fn disputes() {
    let place = PlaceView {
        layer: 3,
        inside: Some(VirtualView { op: 6, element: 1 << 60 }),
        op: Some(2),
        op_kind: Some("attention.weights".into()),
        node: Some(NodeView { height: 0, index: 4 }),
        element: Some(5),
    };
    let place_json = json!({"layer": 3, "virtual": {"op": 6, "element": "1152921504606846976"}, "op": 2,
        "op_kind": "attention.weights", "node": {"height": 0, "index": 4}, "element": 5});
    golden(place.clone(), place_json.clone());
    golden(PlaceView { layer: 3, ..PlaceView::default() }, json!({"layer": 3}));
    let decision = DecisionView {
        verdict: Verdict::ChallengerWins,
        reason: VerdictReason::Referee,
        claimed: Some("0000803f".into()),
        computed: Some("0100803f".into()),
        at_ms: 50,
    };
    let decision_json = json!({"verdict": "challenger_wins", "reason": "referee", "claimed": "0000803f",
        "computed": "0100803f", "at_ms": 50});
    let summary = DisputeSummary {
        id: DisputeId::from_bytes([10; 32]),
        claim: ClaimId::from_bytes([1; 32]),
        job_id: JobId([2; 16]),
        challenger: party(11, "cara"),
        worker: party(5, "ada"),
        state: DisputeState::Decided,
        turn: None,
        place: place.clone(),
        challenger_commitment: Some(tensor(12)),
        move_count: 9,
        challenger_clock_ms: 100,
        worker_clock_ms: 200,
        opened_at_ms: 30,
        decision: Some(decision),
    };
    let summary_json = json!({
        "id": hex(10), "claim": hex(1), "job_id": uuid(2), "challenger": {"id": hex(11), "name": "cara"},
        "worker": {"id": hex(5), "name": "ada"}, "state": "decided", "turn": null, "place": place_json,
        "challenger_commitment": hex(12), "move_count": 9, "challenger_clock_ms": 100, "worker_clock_ms": 200,
        "opened_at_ms": 30, "decision": decision_json
    });
    let moved = MoveView {
        sequence: 8,
        kind: MoveKind::Prove,
        side: Side::Challenger,
        by: party(11, "cara"),
        place,
        bytes: 9_000,
        witness_bytes: Some(8_000),
        referee_us: Some(120),
        at_ms: 50,
    };
    let moved_json = json!({"sequence": 8, "kind": "prove", "side": "challenger", "by": {"id": hex(11), "name": "cara"},
        "place": place_json, "bytes": 9_000, "witness_bytes": 8_000, "referee_us": 120, "at_ms": 50});
    golden(
        DisputeView { summary: summary.clone(), moves: vec![moved], encoded: Base64(vec![3]) },
        merged(summary_json.clone(), json!({"moves": [moved_json], "encoded": "Aw=="})),
    );
    golden(
        DisputeList { disputes: vec![summary], more: false },
        json!({"disputes": [summary_json], "more": false}),
    );
    let filter = DisputeFilter { party: Some(PartyId::from_bytes([5; 32])), ..DisputeFilter::default() };
    golden(filter, json!({"party": hex(5)}));
    strict(filter);
}

#[test]
fn events() {
    let event = |kind| Event { id: EventCursor("7-1".into()), at_ms: 9, kind };
    golden(
        event(EventKind::JobAssigned {
            job: JobId([2; 16]),
            lease: LeaseId([3; 16]),
            worker: party(5, "ada"),
            attempt: 2,
            stake: 6,
        }),
        json!({"id": "7-1", "at_ms": 9, "type": "job_assigned", "job": uuid(2), "lease": uuid(3),
            "worker": {"id": hex(5), "name": "ada"}, "attempt": 2, "stake": 6}),
    );
    golden(
        event(EventKind::Payment {
            reason: "finalize".into(),
            job: Some(JobId([2; 16])),
            claim: None,
            dispute: None,
            entries: vec![EntryView {
                owner: None,
                name: "treasury".into(),
                kind: AccountKind::Treasury,
                amount: 50,
            }],
        }),
        json!({"id": "7-1", "at_ms": 9, "type": "payment", "reason": "finalize", "job": uuid(2), "claim": null,
            "dispute": null,
            "entries": [{"owner": null, "name": "treasury", "kind": "treasury", "amount": 50}]}),
    );
    golden(
        event(EventKind::WorkerSuspended {
            worker: party(5, "ada"),
            claim: ClaimId::from_bytes([1; 32]),
            restarted_windows: 3,
        }),
        json!({"id": "7-1", "at_ms": 9, "type": "worker_suspended", "worker": {"id": hex(5), "name": "ada"},
            "claim": hex(1), "restarted_windows": 3}),
    );
    let later: Event =
        serde_json::from_value(json!({"id": "8-1", "at_ms": 9, "type": "of_tomorrow"})).unwrap();
    assert_eq!(later.kind, EventKind::Unknown);
    golden(EventsQuery { after: Some(EventCursor::start()) }, json!({"after": "0-0"}));
}

#[test]
fn the_name_of_an_event_is_its_tag() {
    let kinds = [
        EventKind::JobRefunded { job: JobId([2; 16]), amount: 5 },
        EventKind::ModelReady { model: ModelId::from_bytes([4; 32]), name: "toy".into() },
        EventKind::MoveRefused {
            dispute: DisputeId::from_bytes([10; 32]),
            claim: ClaimId::from_bytes([1; 32]),
            by: party(5, "ada"),
            code: ErrorCode::WrongTurn,
            message: "not yet".into(),
        },
    ];
    for kind in kinds {
        assert_eq!(serde_json::to_value(&kind).unwrap()["type"], kind.name());
    }
}

#[test]
fn info() {
    golden(
        Info {
            coordinator: PartyId::from_bytes([13; 32]),
            service_time_ms: 77,
            version: "0.1.0".into(),
            prices: PricesView { per_job: 1_000, per_token: 10, per_answer_token: 30 },
            parameters: ParametersView::from(&Parameters::default()),
        },
        json!({
            "coordinator": hex(13), "service_time_ms": 77, "version": "0.1.0",
            "prices": {"per_job": 1_000, "per_token": 10, "per_answer_token": 30},
            "parameters": {
                "stake_per_job": 400_000, "bond": 200_000, "lost_lease_fee": 1_000, "fee_ppm": 50_000,
                "slash_to_treasury_ppm": 250_000, "slash_to_submitter_ppm": 250_000,
                "opener_refund_cap_ppm": 200_000, "opener_refund": 20_000, "forfeit_to_worker_ppm": 500_000,
                "window_ms": 300_000, "worker_allowance_ms": 600_000, "challenger_allowance_ms": 300_000,
                "lease_ms": 120_000, "heartbeat_ms": 15_000, "hold_ms": 600_000, "attempts": 3,
                "lease_attempts": 8, "stake_multiple": 40
            }
        }),
    );
    golden(Health { status: "ok".into() }, json!({"status": "ok"}));
}

#[test]
fn errors_have_the_shape_that_openai_clients_read() {
    let mut detail = ErrorDetail::new(ErrorCode::UnknownModel, "no model is called \"toy\"");
    detail.param = Some("model".into());
    golden(
        ErrorBody { error: detail, request_id: "r1".into() },
        json!({"error": {"code": "unknown_model", "message": "no model is called \"toy\"", "type": "not_found_error",
            "param": "model"}, "request_id": "r1"}),
    );
    let later: ErrorDetail =
        serde_json::from_value(json!({"code": "of_tomorrow", "message": "m", "type": "server_error"}))
            .unwrap();
    assert_eq!((later.code, later.kind), (ErrorCode::Unknown, ErrorKind::ServerError));
}

#[test]
fn error_codes_are_distinct_snake_case_and_parse_back() {
    let mut seen = std::collections::HashSet::new();
    for &code in ErrorCode::ALL {
        let text = code.as_str();
        assert!(seen.insert(text), "{text} twice");
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
        assert_eq!(ErrorCode::parse(text), code);
    }
}

#[test]
fn a_hash_in_json_is_lower_case_hex_of_its_full_length() {
    let read = |text: String| serde_json::from_value::<Vec<TensorCommitment>>(json!([text]));
    assert!(read(hex(0xab)).is_ok());
    assert!(read(hex(0xab).to_uppercase()).is_err());
    assert!(read(hex(0xab)[1..].to_owned()).is_err());
    assert!(read(format!("0x{}", hex(0xab))).is_err());
}
