//! Keeps the clock with the host's, which alone is set by somebody.

use super::api::{AdjustClockRequest, AdjustClockResponse};
use crate::fault::{Doing, Fault, Outcome};
use crate::sys::Sys;

/// So much would take the kernel a quarter of an hour little by little.
const AT_ONCE_NANOS: u64 = 500_000_000;

pub fn adjust_clock(sys: &dyn Sys, request: AdjustClockRequest) -> Outcome<AdjustClockResponse> {
    let by = request.by_nanos;
    if by.unsigned_abs() >= AT_ONCE_NANOS {
        let then = sys.unix_nano().checked_add(by).filter(|then| *then > 0);
        let then = then.ok_or_else(|| Fault::invalid(format!("{by} ns from now there is no time")))?;
        sys.set_clock(then).doing("set the clock")?;
    } else if by != 0 {
        sys.slew_clock(by).doing("adjust the clock")?;
    }
    Ok(AdjustClockResponse { unix_nano: sys.unix_nano() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;
    use crate::sys::fake::Fake;

    #[test]
    fn moves_much_at_once_and_little_gradually() {
        let calls = |by_nanos| {
            let fake = Fake::default();
            adjust_clock(&fake, AdjustClockRequest { by_nanos }).unwrap();
            fake.calls()
        };
        assert!(calls(0).is_empty());
        assert_eq!(calls(500_000_000), ["set_clock 500000001"]);
        assert_eq!(calls(499_999_999), ["slew_clock 499999999"]);
        assert_eq!(calls(-1), ["slew_clock -1"]);
    }

    #[test]
    fn refuses_what_is_no_time() {
        let fake = Fake::default();
        for by_nanos in [i64::MIN, -500_000_001, i64::MAX] {
            let fault = adjust_clock(&fake, AdjustClockRequest { by_nanos }).unwrap_err();
            assert_eq!(fault.kind, Kind::Invalid);
        }
        assert!(fake.calls().is_empty());
    }
}
