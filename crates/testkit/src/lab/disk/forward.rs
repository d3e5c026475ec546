//! What each store forwards to functions of its own that have the same names.

/// Implements [`DiskBuilder`] for a builder.
macro_rules! builds {
    ($store:ty, $builder:ty) => {
        impl DiskBuilder for $builder {
            type Disk = $store;

            fn accept_loss_after(self, batch: u64) -> Self {
                self.accept_loss_after(batch)
            }

            fn clock(self, clock: impl Clock) -> Self {
                self.clock(clock)
            }

            fn create(self, create: bool) -> Self {
                self.create(create)
            }

            fn max_bytes(self, bytes: u64) -> Self {
                self.max_bytes(bytes)
            }

            fn max_records(self, records: u64) -> Self {
                self.max_records(records)
            }

            fn min_free_space(self, bytes: u64) -> Self {
                self.min_free_space(bytes)
            }

            fn outcome_cache_bytes(self, bytes: u64) -> Self {
                self.outcome_cache_bytes(bytes)
            }

            fn open(self, path: impl AsRef<Path>) -> Result<$store, OpenError> {
                self.open(path)
            }

            fn open_within(self, path: impl AsRef<Path>, timeout: Duration) -> Result<$store, OpenError> {
                self.open_within(path, timeout)
            }
        }
    };
}

/// Implements what is the same in each store but for its names.
macro_rules! forwards {
    ($view:ident) => {
        type View<'a> = $view<'a>;

        fn len(&self) -> u64 {
            self.len()
        }

        fn sync(&self) -> BoxFuture<'static, Result<(), StoreError>> {
            self.sync().boxed()
        }

        fn transaction<const N: usize, T, E, F>(&self, tables: [&Self::Table; N], closure: F) -> Sent<T, E>
        where
            F: FnMut([$view<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
            T: Send + 'static,
            E: Send + 'static,
        {
            self.transaction(tables, closure).boxed()
        }

        fn complete_in<R: Completable, const N: usize, E, F>(
            &self,
            run: &R,
            tables: [&Self::Table; N],
            closure: F,
        ) -> Sent<R::Committed, E>
        where
            F: FnMut([$view<'_>; N]) -> Result<R::Outcome, Abort<E>> + Send + 'static,
            E: Send + 'static,
        {
            self.complete_in(run, tables, closure).boxed()
        }
    };
}

pub(super) use builds;
pub(super) use forwards;
