//! Tokens and times, as the database has them on the wire.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::Token;

type Source = Box<dyn Error + Sync + Send>;

/// A token as a `uuid`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uuid(pub(crate) Token);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Source> {
        out.extend_from_slice(&self.0.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Source> {
        Ok(Self(Token(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// A time as a `timestamptz`: on the wire, microseconds since 2000.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

/// Milliseconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800_000;
/// The end of the times that the database has, in microseconds since 2000: the year 294277.
const END: i64 = 9_223_371_331_200_000_000;

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Source> {
        // A time beyond what the database has is `infinity`.
        let micros = i64::try_from(self.0.as_millis())
            .ok()
            .and_then(|millis| (millis - EPOCH).checked_mul(1000))
            .filter(|micros| *micros < END)
            .unwrap_or(i64::MAX);
        out.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Source> {
        Ok(Self(match i64::from_be_bytes(raw.try_into()?) {
            // `infinity`, which is what `to_sql` makes of such a time.
            i64::MAX => Timestamp::from_millis(u64::MAX),
            // A time before 1970 becomes 1970.
            micros => Timestamp::from_millis(u64::try_from(micros.div_euclid(1000) + EPOCH).unwrap_or(0)),
        }))
    }

    accepts!(TIMESTAMPTZ);
}

/// Whole milliseconds, as a number or as an interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Millis(pub(crate) i64);

impl ToSql for Millis {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Source> {
        if *kind == Type::INTERVAL {
            // Microseconds, days, and months.
            out.extend_from_slice(&self.0.saturating_mul(1000).to_be_bytes());
            out.extend_from_slice(&[0; 8]);
        } else {
            out.extend_from_slice(&self.0.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    accepts!(INT8, INTERVAL);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_the_database_has_not_is_the_end_of_time() {
        for millis in [(END / 1000 + EPOCH).cast_unsigned(), i64::MAX.cast_unsigned(), u64::MAX] {
            let mut wire = BytesMut::new();
            Time(Timestamp::from_millis(millis)).to_sql(&Type::TIMESTAMPTZ, &mut wire).unwrap();
            assert_eq!(wire[..], i64::MAX.to_be_bytes());
        }
    }

    #[test]
    fn a_time_survives_the_wire() {
        for millis in [0, 1, 946_684_799_999, 946_684_800_000, 1_790_000_000_123, u64::MAX] {
            let mut wire = BytesMut::new();
            Time(Timestamp::from_millis(millis)).to_sql(&Type::TIMESTAMPTZ, &mut wire).unwrap();
            assert_eq!(Time::from_sql(&Type::TIMESTAMPTZ, &wire).unwrap().0.as_millis(), millis);
        }
    }
}
