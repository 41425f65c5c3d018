//! ravi-broker: one Ravi login per machine, one scoped, accountable identity per agent.
//!
//! Layers import only downwards; `tests/architecture.rs` fails on a breach.
//!
//! ```text
//! 5  bin/*   program   demo                        wiring only
//! 4  daemon   grpc   client   cli   mcp            edges: process, wire, people, models
//! 3  broker                                        the request path: one function per verb
//! 2  session  policy  approval  limit  lease  inbox  audit   the rules
//! 1  vault -> upstream   peer   otlp               secrets at rest; the outbound network; who calls
//! 0  secret  clock  types  config  sys  telemetry  metrics  pb  link
//! ```
//!
//! `sandbox`, the stand-in for Ravi, stands beside the layers.
//!
//! # Invariants
//!
//! Each with the tests that check it: unit tests by their module, integration tests by their path under
//! `tests/it/`, or under `tests/` where it begins with `residue`.
//!
//! - **I1** A secret is in a sealed slot, in a [`secret::Secret`], or in a buffer that is wiped when it is
//!   freed: by the allocator that each program sets ([`program::WIPING`]). `run` also keeps it in a sealed file
//!   in memory, and in an environment where that was asked for.
//!   `residue::leases::ten_thousand_leases_of_a_hundred_values_leave_nothing_behind`,
//!   `residue::rest::every_call_leaves_nothing_behind`,
//!   `residue::serving::copies_are_bounded_by_the_calls_in_flight`,
//!   `residue::sealing::the_sealing_key_is_on_its_page_alone_and_gone_after_a_lock`,
//!   `residue::dump::a_core_dump_of_the_resting_daemon_holds_nothing`,
//!   `residue::command::the_command_line_ends_without_a_copy_of_what_it_printed`,
//!   `residue::adapter::the_adapter_keeps_no_copy_of_what_it_has_answered`,
//!   `residue::able::a_daemon_that_does_not_wipe_is_caught`,
//!   `tests/architecture.rs::every_program_wipes_what_it_frees`,
//!   `life::custody::no_key_and_no_value_is_left_outside_the_memory_of_the_daemon`,
//!   `cli::run::inject::no_environment_and_no_command_line_shows_a_value_or_the_token`,
//!   `vault::arena::tests::a_slot_opens_to_what_was_sealed_and_holds_no_plaintext`.
//! - **I2** No lock or map guard is held over `.await`. The lints `await_holding_lock` and
//!   `await_holding_invalid_type`, which are denied; `request::fault::a_call_that_hangs_holds_up_nobody_else`.
//! - **I3** A lease never outlives its session, its role's maximum, or the upstream value.
//!   `lease::state::tests::no_sequence_of_renewals_passes_the_limit`,
//!   `request::lease::no_lease_outlives_its_session`,
//!   `request::renew::a_shortened_session_ends_at_its_new_end_with_all_below_it`,
//!   `life::death::of_a_thousand_agents_that_are_killed_nothing_is_left_within_milliseconds`,
//!   `request::lease::a_renewal_never_passes_the_maximum_of_the_role`,
//!   `request::lease::the_lease_of_a_sign_in_token_never_outlives_the_token`.
//! - **I4** At most one upstream call for a key at a time, and a caller that goes away does not cancel it
//!   for the others. `request::cache::a_thousand_callers_of_one_cold_value_cost_one_call`,
//!   `request::cache::a_caller_that_goes_away_takes_the_value_from_nobody`.
//! - **I5** Every map, queue and buffer has a bound, and an owner that prunes it.
//!   `request::session::there_are_only_so_many_sessions_in_all_and_of_one_role`,
//!   `request::delegate::generations_end_at_the_eighth`,
//!   `request::explain::only_the_last_1024_refusals_are_remembered`,
//!   `cli::mask::tests::what_is_held_back_has_a_bound_whatever_comes`,
//!   `request::lease::a_session_has_only_so_many_leases_at_once`,
//!   `request::cache::the_cache_keeps_only_so_many_answers`,
//!   `request::watch::a_watcher_that_does_not_read_misses_events_and_holds_nobody_up`, `wire::floods`.
//! - **I6** A type that can hold a secret has no `Debug`, `Display`, `Serialize` or `Clone`.
//!   `tests/architecture.rs::the_source_keeps_the_rules`.
//! - **I7** A denied request costs no upstream call. `request::cache::a_denied_request_costs_no_call`,
//!   `request::delivery::a_value_that_may_only_be_used_is_never_shown`.
//! - **I8** The management key is used by no call that an agent can steer outside its own identity.
//!   `request::cache::an_agent_never_sees_or_touches_what_belongs_to_another_identity`,
//!   `upstream::every_endpoint_gets_its_kind_of_key_and_names_its_identity`.
//! - **I9** No value leaves unless its audit record is written.
//!   `request::trail::every_act_that_is_allowed_leaves_one_record_before_its_answer`,
//!   `request::trail::without_room_for_a_record_no_value_leaves`,
//!   `request::trail::while_the_trail_is_disturbed_no_value_leaves`.
//! - **I10** What the daemon cannot do safely it refuses, and says which rule refused. `life::start`,
//!   `request::trail::every_refusal_leaves_one_record_with_its_rule`,
//!   `life::harden::an_attestor_that_hangs_denies_the_roles_that_need_it_and_no_others`.

pub mod approval;
pub mod audit;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
#[cfg(feature = "sandbox")]
pub mod demo;
pub mod grpc;
pub mod inbox;
pub mod lease;
pub mod limit;
pub mod link;
pub mod mcp;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod pb;
pub mod peer;
pub mod policy;
pub mod program;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod sys;
pub mod telemetry;
pub mod types;
pub mod upstream;
pub mod vault;
