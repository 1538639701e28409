use gainsay_commitment::{PartyId, SecretKey};
use gainsay_coordinator::app::AppError;
use gainsay_protocol::{Amount, OwnerId, ServiceTime};

use crate::support::World;

#[tokio::test]
async fn an_api_key_opens_its_own_account_and_is_not_stored() {
    let world = World::new().await;
    let (submitter, key) = world.app.register_submitter("somebody").await.unwrap();
    assert_eq!(world.app.authenticate(key.expose()).await.unwrap(), submitter);
    let wrong = format!("{}0", key.expose());
    assert!(matches!(world.app.authenticate(&wrong).await, Err(AppError::UnknownApiKey)));
    let stored: Vec<u8> = sqlx::query_scalar("select api_key_hash from owners where name = 'somebody'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_ne!(stored, key.expose().as_bytes());
    assert!(!format!("{key:?}").contains(key.expose()));
}

#[tokio::test]
async fn registering_again_with_the_same_details_changes_nothing() {
    let world = World::new().await;
    let [owner, other, worker] = [(); 3].map(|()| SecretKey::generate().id());
    let first = world.app.register_owner(owner, "owner").await.unwrap();
    assert_eq!(world.app.register_owner(owner, "owner").await.unwrap(), first);
    assert!(matches!(world.app.register_owner(owner, "renamed").await, Err(AppError::AlreadyRegistered(_))));

    let agent = world.app.register_worker(owner, worker, "w", "cpu").await.unwrap();
    assert_eq!(world.app.register_worker(owner, worker, "w", "cpu").await.unwrap(), agent);
    world.app.register_owner(other, "other").await.unwrap();
    let stolen = world.app.register_worker(other, worker, "w", "cpu").await;
    assert!(matches!(stolen, Err(AppError::AlreadyRegistered(key)) if key == worker));
}

#[tokio::test]
async fn names_and_keys_that_cannot_be_are_refused() {
    let world = World::new().await;
    let key = SecretKey::generate().id();
    for name in ["", "a\nb", &"x".repeat(101)] {
        assert!(matches!(world.app.register_submitter(name).await, Err(AppError::InvalidName)), "{name:?}");
        assert!(matches!(world.app.register_owner(key, name).await, Err(AppError::InvalidName)), "{name:?}");
    }
    // A point of small order: nobody's key, everybody's signature.
    let weak = PartyId::from_bytes([0; 32]);
    assert!(matches!(world.app.register_owner(weak, "weak").await, Err(AppError::InvalidKey(_))));
    let nobodys = world.app.register_worker(key, SecretKey::generate().id(), "w", "").await;
    assert!(matches!(nobodys, Err(AppError::UnknownParty { role: "owner", .. })));
}

#[tokio::test]
async fn a_nonce_serves_once_and_only_near_its_time() {
    let world = World::new().await;
    let party = SecretKey::generate().id();
    let now = world.advance(1_000_000).await;
    let at = |ms: i64| ServiceTime(now.0 + ms);
    world.app.record_nonce(party, [1; 16], at(0)).await.unwrap();
    assert!(matches!(world.app.record_nonce(party, [1; 16], at(0)).await, Err(AppError::NonceUsed)));
    world.app.record_nonce(SecretKey::generate().id(), [1; 16], at(0)).await.unwrap();
    for (ms, fits) in [(-60_000, true), (-60_001, false), (60_000, true), (60_001, false)] {
        let mut nonce = [2; 16];
        nonce[..4].copy_from_slice(&(ms as i32).to_le_bytes());
        let answer = world.app.record_nonce(party, nonce, at(ms)).await;
        assert_eq!(answer.is_ok(), fits, "{ms} ms: {answer:?}");
    }
}

#[tokio::test]
async fn only_free_money_can_be_withdrawn() {
    let world = World::new().await;
    let (_, owner) = world.provider("owner").await;
    let free = world.balance(owner, "free").await;
    let all_but_one = Amount(free.0 - 1);
    assert_eq!(world.app.withdraw(owner, all_but_one).await.unwrap(), Amount(1));
    world.check().await;
    let too_much = world.app.withdraw(owner, Amount(2)).await;
    assert!(matches!(too_much, Err(AppError::InsufficientFunds { available: Amount(1), .. })));
    for amount in [0, -5, Amount::MAX.0 + 1] {
        let refused = world.app.deposit(owner, Amount(amount)).await;
        assert!(matches!(refused, Err(AppError::InvalidAmount { .. })), "{amount}");
    }
    let nobody = OwnerId([9; 16]);
    assert!(matches!(world.app.deposit(nobody, Amount(1)).await, Err(AppError::UnknownOwner(_))));
    assert!(matches!(world.app.accounts_of(nobody).await, Err(AppError::UnknownOwner(_))));
    world.check().await;
}

/// Two withdrawals that each fit but not both.
#[tokio::test]
async fn concurrent_withdrawals_do_not_overdraw() {
    let world = World::new().await;
    let (_, owner) = world.provider("owner").await;
    let most = Amount(world.balance(owner, "free").await.0 / 2 + 1);
    let (one, other) = tokio::join!(world.app.withdraw(owner, most), world.app.withdraw(owner, most));
    assert_eq!([&one, &other].iter().filter(|done| done.is_ok()).count(), 1, "{one:?} {other:?}");
    world.check().await;
}
