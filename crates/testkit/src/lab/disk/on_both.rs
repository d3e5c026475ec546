//! One test on both stores.

/// Makes two tests of an asynchronous function that is generic over a [`Disk`]: one on sled, and one on fjall if
/// tower-idempotency has the feature `fjall`. An attribute in front of the name takes the place of `#[tokio::test]`;
/// `fn` in front of it says that the function is not asynchronous.
#[macro_export]
macro_rules! on_both {
    ($name:ident) => {
        $crate::on_both!(
            #[tokio::test]
            $name
        );
    };
    (fn $name:ident) => {
        mod $name {
            #[test]
            fn on_sled() {
                super::$name::<::tower_idempotency::SledStore>();
            }

            ::tower_idempotency::with_fjall! {
                #[test]
                fn on_fjall() {
                    super::$name::<::tower_idempotency::FjallStore>();
                }
            }
        }
    };
    (#[$test:meta] $name:ident) => {
        mod $name {
            #[$test]
            async fn on_sled() {
                super::$name::<::tower_idempotency::SledStore>().await;
            }

            ::tower_idempotency::with_fjall! {
                #[$test]
                async fn on_fjall() {
                    super::$name::<::tower_idempotency::FjallStore>().await;
                }
            }
        }
    };
}
