//! Scripts: what happens on the left, what is done about it on the right.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A state that knows what the script said.
#[derive(Debug)]
struct Known {
    keys: Vec<Option<u64>>,
    /// Whether messages can be read at the moment.
    readable: bool,
    gone: BTreeSet<u64>,
    marks: BTreeMap<u64, Mark>,
    delivered_through: u64,
    returned_below: u64,
    isolated: Option<Offset>,
}

impl View for Known {
    fn end(&self) -> Offset {
        Offset(self.keys.len() as u64)
    }

    fn next_unsettled(&self, from: Offset) -> Offset {
        (from.0..).map(Offset).find(|offset| !self.gone.contains(&offset.0)).expect("an offset")
    }

    fn mark(&self, offset: Offset) -> Mark {
        self.marks.get(&offset.0).copied().unwrap_or_default()
    }

    fn key(&self, offset: Offset) -> Option<u64> {
        self.keys[usize::try_from(offset.0).expect("an offset")].filter(|_| self.readable)
    }

    fn delivered_through(&self) -> Offset {
        Offset(self.delivered_through)
    }

    fn returned_below(&self) -> Offset {
        Offset(self.returned_below)
    }

    fn isolated(&self) -> Option<Offset> {
        self.isolated.filter(|offset| !self.gone.contains(&offset.0))
    }
}

/// A script under way.
struct Play {
    delivery: Delivery,
    known: Known,
    now_ms: u64,
    /// Of every message.
    bytes: u64,
    out: Vec<String>,
}

impl Play {
    fn new(mode: Mode) -> Self {
        Self::with(Terms { mode, in_flight_max: IN_FLIGHT_DEFAULT, ack_deadline_ms: None, paused: false })
    }

    fn with(terms: Terms) -> Self {
        let known = Known {
            keys: Vec::new(),
            readable: true,
            gone: BTreeSet::new(),
            marks: BTreeMap::new(),
            delivered_through: 1 << 40,
            returned_below: 0,
            isolated: None,
        };
        Self { delivery: Delivery::new(terms, Offset(0), 1), known, now_ms: 0, bytes: 0, out: Vec::new() }
    }

    /// Plays a script: `+N` N more messages, `+xy.` one each with key x, key y and none; `join a`, `leave a`, `a=N`
    /// credit of a in total, `a~N` window of a in total, `size N` of the messages from now on; `ack T`, `through T` all up
    /// to it, `nack T MS`, `late T MS` the same for an expired one, `refuse T`, `back T`, `extend T MS`; `crash O N` so
    /// many crashes of an offset, `isolated O`, `trim O`, `remove O`, `seek O`, `durable O` the mark; `pause`, `resume`; `max N` in flight; `~MS` time
    /// passes. Returns what is delivered, as `a<-OFFSET#TOKEN` with `/ATTEMPT` after the first, `!` for returned, `^` for
    /// expired and `?` for crashed ones; `expire T`, `mark O`, `alone O`, `free O`; `stale T` for a token that was.
    fn play(&mut self, script: &str) -> String {
        for step in script.split(", ") {
            self.step(step);
        }
        std::mem::take(&mut self.out).join(" ")
    }

    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        let event = match words[..] {
            ["join", name] => Event::Join(id(name)),
            ["leave", name] => Event::Leave(id(name)),
            ["size", bytes] => return self.bytes = number(bytes),
            ["crash", offset, crashes] => {
                let crashes = u32::try_from(number(crashes)).expect("a count");
                self.known.marks.entry(number(offset)).or_default().crashes = crashes;
                return;
            }
            ["isolated", offset] => {
                self.known.isolated = Some(Offset(number(offset)));
                Event::Isolated(Offset(number(offset)))
            }
            ["trim", offset] => {
                self.known.gone.extend(0..number(offset));
                Event::Trimmed(Offset(number(offset)))
            }
            ["remove", offset] => {
                self.known.gone.insert(number(offset));
                Event::Removed(Offset(number(offset)))
            }
            ["durable", offset] => {
                self.known.delivered_through = number(offset);
                Event::Available
            }
            ["max", count] => {
                let in_flight_max = usize::try_from(number(count)).expect("a count");
                self.delivery.set_terms(Terms { in_flight_max, ..self.delivery.terms });
                Event::Tick
            }
            ["seek", offset] => {
                (self.known.gone, self.known.marks) = ((0..number(offset)).collect(), BTreeMap::new());
                Event::Sought(Offset(number(offset)))
            }
            ["pause" | "resume"] => {
                self.delivery.set_terms(Terms { paused: step == "pause", ..self.delivery.terms });
                Event::Tick
            }
            [word] => self.short(word),
            _ => self.settle(&words),
        };
        self.delivery.handle(self.now_ms, event);
        self.drain();
    }

    fn short(&mut self, word: &str) -> Event {
        let (name, rest) = word.split_at(1);
        match (name, rest.split_at_checked(1)) {
            ("+", _) => {
                match rest.parse() {
                    Ok(count) => self.known.keys.extend(std::iter::repeat_n(None, count)),
                    Err(_) => self.known.keys.extend(rest.bytes().map(hash)),
                }
                Event::Available
            }
            ("~", _) => {
                self.now_ms += number(rest);
                Event::Tick
            }
            (name, Some(("=", granted))) => Event::Credit(id(name), number(granted)),
            (name, Some(("~", window))) => Event::Window(id(name), number(window)),
            _ => panic!("no step: {word}"),
        }
    }

    fn settle(&mut self, words: &[&str]) -> Event {
        let token = Token(number(words[1]));
        let holder = self.delivery.flights.get(token).and_then(|flight| self.delivery.consumers.id(flight.seat));
        let holder = holder.unwrap_or(ConsumerId(0));
        let ms = words.get(2).map_or(0, |ms| number(ms));
        if words[0] == "late" {
            return self.parked(token, ms, Why::Expired);
        }
        if words[0] == "through" {
            let held = self.delivery.begin_settle_through(holder, token).unwrap_or_default();
            self.out.extend(held.iter().map(|(token, held)| format!("acks {}#{}", held.offset, token.0)));
            for (token, held) in held {
                self.known.gone.insert(held.offset.0);
                self.delivery.handle(self.now_ms, Event::Settled(token));
            }
            return Event::Tick;
        }
        let stands = match words[0] {
            "extend" => self.delivery.extend(self.now_ms, holder, token, ms),
            _ => self.delivery.begin_settle(holder, token).is_some(),
        };
        if !stands {
            self.out.push(format!("stale {}", token.0));
            return Event::Tick;
        }
        match words[0] {
            "ack" => {
                let offset = self.delivery.flights.get(token).expect("a delivery").offset;
                self.known.gone.insert(offset.0);
                Event::Settled(token)
            }
            "nack" => self.parked(token, ms, Why::Nacked),
            "refuse" => Event::Refused(token),
            "back" => Event::GiveBack(token),
            "extend" => Event::Tick,
            _ => panic!("no step: {words:?}"),
        }
    }

    fn parked(&mut self, token: Token, ms: u64, why: Why) -> Event {
        let offset = self.delivery.flights.get(token).expect("a delivery").offset;
        self.known.marks.entry(offset.0).or_default().attempts += 1;
        self.known.isolated = self.known.isolated.filter(|isolated| *isolated != offset);
        Event::Parked { token, until_ms: self.now_ms + ms, why }
    }

    fn drain(&mut self) {
        while let Some(action) = self.delivery.poll_action(self.now_ms, &self.known) {
            let line = match action {
                Action::Deliver { consumer, token, offset, attempt, why, .. } => {
                    self.delivery.charge(consumer, self.bytes);
                    let name = char::from(u8::try_from(consumer.0).expect("a letter"));
                    let attempt = if attempt > 1 { format!("/{attempt}") } else { String::new() };
                    let why = match why {
                        Why::First | Why::Nacked => "",
                        Why::Returned => "!",
                        Why::Expired => "^",
                        Why::Crashed => "?",
                    };
                    format!("{name}<-{offset}#{}{attempt}{why}", token.0)
                }
                Action::Advance { through } => format!("mark {through}"),
                Action::Isolate { offset } => format!("alone {offset}"),
                Action::Release { offset } => {
                    self.known.isolated = None;
                    format!("free {offset}")
                }
                Action::Expire { token, .. } => format!("expire {}", token.0),
            };
            self.out.push(line);
        }
    }
}

fn id(name: &str) -> ConsumerId {
    ConsumerId(u64::from(name.as_bytes()[0]))
}

/// Of two consumers the first has the small letters, the second the capitals.
fn hash(letter: u8) -> Option<u64> {
    let half = if letter.is_ascii_uppercase() { 2_048 } else { 0 };
    (letter != b'.').then(|| u64::from(letter) + half)
}

fn number(text: &str) -> u64 {
    text.parse::<u64>().expect("a number")
}

fn check(script: &str, expect: &str) {
    check_in(Mode::Shared, script, expect);
}

fn check_in(mode: Mode, script: &str, expect: &str) {
    assert_eq!(Play::new(mode).play(script), expect, "{script}");
}

fn check_keyed(script: &str, expect: &str) {
    check_in(Mode::KeyShared, script, expect);
}

fn check_deadline(script: &str, expect: &str) {
    let terms =
        Terms { mode: Mode::Shared, in_flight_max: IN_FLIGHT_DEFAULT, ack_deadline_ms: Some(100), paused: false };
    assert_eq!(Play::with(terms).play(script), expect, "{script}");
}

#[test]
fn credit_bounds_what_is_handed_out() {
    check("+3, join a, a=2", "a<-0#1 a<-1#2");
    check("join a, a=2, +3, a=2, a=3", "a<-0#1 a<-1#2 a<-2#3");
    check("join a, a=1, +2, ack 1", "a<-0#1");
    check("+2, a=5", "");
}

#[test]
fn a_window_is_overdrawn_by_one_message_at_most() {
    check("size 6, join a, a=9, a~10, +4, ack 1, a~13", "a<-0#1 a<-1#2 a<-2#3");
    check("size 5, join a, a=9, a~10, +4", "a<-0#1 a<-1#2");
    check("size 50, join a, join b, a=9, a~1, b=9, +3", "a<-0#1 b<-1#2 b<-2#3");
    check_in(Mode::Exclusive, "size 6, join a, a=9, a~10, +4, a~13", "a<-0#1 a<-1#2 a<-2#3");
    check_keyed("size 6, join a, a=9, a~10, +xxxx, a~13", "a<-0#1 a<-1#2 a<-2#3");
}

#[test]
fn consumers_take_turns() {
    check("join a, join b, a=2, b=3, +5", "a<-0#1 b<-1#2 a<-2#3 b<-3#4 b<-4#5");
}

#[test]
fn a_leaving_consumer_gives_back_at_once() {
    check("join a, a=9, +2, join b, b=9, leave a", "a<-0#1 a<-1#2 b<-0#3! b<-1#4!");
    check("join a, a=9, +2, ack 1, leave a, join b, b=9", "a<-0#1 a<-1#2 b<-1#3!");
}

#[test]
fn what_is_given_back_is_no_attempt() {
    check("join a, a=9, +2, back 1, back 1", "a<-0#1 a<-1#2 a<-0#3! stale 1");
}

#[test]
fn a_failed_attempt_waits_and_counts() {
    check("join a, a=9, +1, nack 1 100, ~99, ~1", "a<-0#1 a<-0#2/2");
    check("join a, a=9, +2, nack 1 5, nack 2 3, ~5", "a<-0#1 a<-1#2 a<-0#3/2 a<-1#4/2");
    check("join a, a=9, +1, nack 1 1, ~1, nack 2 1, ~1, leave a, join b, b=1", "a<-0#1 a<-0#2/2 a<-0#3/3 b<-0#4/3!");
}

#[test]
fn stale_tokens_change_nothing() {
    check("join a, a=9, +1, ack 1, ack 1", "a<-0#1 stale 1");
    check("join a, a=1, +1, leave a, ack 1, join b, b=1, ack 2", "a<-0#1 stale 1 b<-0#2!");
    check("join a, a=9, +1, refuse 1, ack 1, ack 1", "a<-0#1 stale 1");
    let mut play = Play::new(Mode::Shared);
    play.play("join a, join b, a=9, +1");
    assert_eq!(play.delivery.begin_settle(id("b"), Token(1)), None);
    assert_eq!(play.delivery.begin_settle_through(id("b"), Token(1)), None);
    assert!(!play.delivery.extend(0, id("b"), Token(1), 9));
    assert_eq!(play.delivery.begin_settle(id("a"), Token(1)), Some(Held { offset: Offset(0), attempt: 1 }));
    assert_eq!(play.delivery.begin_settle_through(id("a"), Token(1)), None);
}

#[test]
fn an_ack_may_take_all_before_it() {
    check(
        "join a, join b, a=9, b=1, +4, back 1, through 4, through 3, back 5",
        "a<-0#1 b<-1#2 a<-2#3 a<-3#4 a<-0#5! acks 0#5 acks 2#3 acks 3#4 stale 5",
    );
}

#[test]
fn what_an_earlier_run_settled_is_left_out() {
    let mut play = Play::new(Mode::Shared);
    play.delivery = Delivery::new(play.delivery.terms, Offset(2), 7);
    play.known.gone.extend([3, 5]);
    play.known.marks.insert(4, Mark { attempts: 2, crashes: 0 });
    assert_eq!(play.play("+7, join a, a=9"), "a<-2#7 a<-4#8/3 a<-6#9");
}

#[test]
fn in_flight_has_a_limit() {
    let script = format!("join a, a={0}, +{0}", IN_FLIGHT_DEFAULT + 5);
    let mut play = Play::new(Mode::Shared);
    assert_eq!(play.play(&script).split(' ').count(), IN_FLIGHT_DEFAULT);
    assert_eq!(play.play("ack 1"), format!("a<-{IN_FLIGHT_DEFAULT}#{}", IN_FLIGHT_DEFAULT + 1));
}

#[test]
fn what_is_parked_counts_against_the_limit() {
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        check_in(mode, "max 2, join a, a=9, +6, nack 1 9, nack 2 9, ~9", "a<-0#1 a<-1#2 a<-0#3/2 a<-1#4/2");
        let back = "max 3, join a, join b, a=9, b=9, +6, nack 1 9, leave a, leave b, join c, c=1, c=2";
        let (_, after) = Play::new(mode).play(back).split_once("c<-").map(|(a, b)| (a.len(), b.to_owned())).expect("c");
        assert!(!after.contains("<-3"), "{after}");
    }
}

#[test]
fn one_consumer_gets_all_until_it_leaves() {
    check_in(Mode::Exclusive, "join a, join b, b=9, +3, a=2, ack 1, leave a", "a<-0#1 a<-1#2 b<-1#3! b<-2#4");
}

#[test]
fn a_delivery_that_takes_too_long_expires_once() {
    check_deadline("join a, a=9, +1, ~99, ~1, ~5, ack 1, late 1 7, ~6, ~1", "a<-0#1 expire 1 stale 1 a<-0#2/2^");
    check_deadline("join a, a=1, +1, ~100, refuse 1, ~99, ~1", "a<-0#1 expire 1 stale 1");
    check_deadline("join a, a=9, +2, ~50, ack 1, ~50", "a<-0#1 a<-1#2 expire 2");
    check_deadline("join a, a=1, +1, leave a, ~500", "a<-0#1");
}

#[test]
fn a_refused_settlement_has_its_deadline_again() {
    let terms = Terms { mode: Mode::Shared, in_flight_max: 9, ack_deadline_ms: Some(100), paused: false };
    let mut play = Play::with(terms);
    assert_eq!(play.play("join a, a=1, +1, ~60, refuse 1, ~39"), "a<-0#1");
    assert_eq!(play.delivery.poll_timeout(), Some(100));
    assert_eq!(play.play("~1"), "expire 1");
    assert_eq!(play.delivery.poll_timeout(), None);
    play.delivery.handle(100, Event::Refused(Token(1)));
    assert_eq!(play.delivery.poll_timeout(), Some(200));
}

#[test]
fn a_refused_settlement_has_no_deadline_where_there_is_none_any_more() {
    let terms = Terms { mode: Mode::Shared, in_flight_max: 9, ack_deadline_ms: Some(100), paused: false };
    let mut play = Play::with(terms);
    assert_eq!(play.play("join a, a=1, +1, ~100"), "a<-0#1 expire 1");
    play.delivery.set_terms(Terms { ack_deadline_ms: None, ..terms });
    play.delivery.handle(100, Event::Refused(Token(1)));
    assert_eq!(play.play("~500, ack 1"), "");
}

#[test]
fn a_deadline_can_be_extended_and_cut() {
    check_deadline(
        "join a, a=9, +2, ~90, extend 1 50, ~10, ~39, ~1, extend 1 9",
        "a<-0#1 a<-1#2 expire 2 expire 1 stale 1",
    );
    check_deadline("join a, a=9, +2, extend 2 5, ~5, ~95", "a<-0#1 a<-1#2 expire 2 expire 1");
    check("join a, a=9, +1, extend 1 5, ~5", "a<-0#1");
    let terms = Terms { mode: Mode::Shared, in_flight_max: 9, ack_deadline_ms: Some(u64::MAX), paused: false };
    let mut play = Play::with(terms);
    play.play(&format!("join a, a=9, +1, ~5, extend 1 {}", u64::MAX));
    assert_eq!(play.delivery.poll_timeout(), Some(5 + DEADLINE_MAX_MS));
}

#[test]
fn what_stands_still_hands_out_nothing_and_settles() {
    let wanted = "a<-0#1 a<-1#2 a<-1#3/2 a<-2#4 a<-3#5";
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        check_in(mode, "join a, a=9, +2, pause, +2, ack 1, nack 2 5, ~5, resume", wanted);
        check_in(mode, "join a, a=9, pause, +2, ~500", "");
    }
    let terms = Terms { mode: Mode::Shared, in_flight_max: 9, ack_deadline_ms: Some(100), paused: false };
    assert_eq!(Play::with(terms).play("join a, a=9, +1, pause, ~100"), "a<-0#1 expire 1");
}

#[test]
fn seeking_makes_what_is_in_hand_stale_and_begins_anew() {
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        let first = "a<-0#1 a<-1#2 a<-2#3 a<-3#4";
        let wanted = format!("{first} a<-1#5 a<-2#6 a<-3#7 stale 3 a<-3#8 stale 5");
        check_in(mode, "join a, a=9, +4, ack 1, nack 2 50, seek 1, ack 3, seek 3, ack 5, ~50, ack 8", &wanted);
        check_in(mode, "join a, a=9, +4, seek 4, +1", &format!("{first} a<-4#5"));
    }
}

#[test]
fn nothing_goes_past_the_durable_mark() {
    check("durable 0, +3000", "");
    check("durable 0, +3, join a, a=9, durable 2048", "mark 2048 a<-0#1 a<-1#2 a<-2#3");
    check("durable 2, +3, join a, a=9, durable 2", "mark 2048 a<-0#1 a<-1#2");
    let mut play = Play::new(Mode::Shared);
    let out = play.play("durable 2048, join a, a=1024, +3000");
    assert!(!out.contains("mark"), "{out}");
    assert_eq!(play.play("a=1025, a=1026"), "a<-1024#1025 mark 3073 a<-1025#1026");
    assert_eq!(play.play("durable 3073, a=1027"), "a<-1026#1027");
}

#[test]
fn what_was_perhaps_handed_out_before_says_so() {
    let mut play = Play::new(Mode::Shared);
    play.known.returned_below = 2;
    play.known.marks.insert(1, Mark { attempts: 1, crashes: 1 });
    assert_eq!(play.play("+3, join a, a=9, back 1"), "a<-0#1? a<-1#2/2 a<-2#3 a<-0#4!");
}

#[test]
fn a_message_that_cannot_be_read_for_a_moment_is_still_handled_alone() {
    for was_readable in [true, false] {
        let mut play = Play::new(Mode::KeyShared);
        play.known.readable = was_readable;
        assert_eq!(play.play("crash 0 3, +ab, join a, a=9"), "alone 0");
        play.known.readable = !was_readable;
        assert_eq!(play.play("isolated 0, ack 1"), "a<-0#1 a<-1#2");
    }
}

#[test]
fn what_cannot_be_read_takes_no_credit() {
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        let mut play = Play::new(mode);
        assert_eq!(play.play("+2, join a, a=1"), "a<-0#1");
        play.delivery.handle(0, Event::Unreadable { token: Token(1), until_ms: 5 });
        play.drain();
        assert_eq!(play.play("~5"), "a<-1#2");
        assert_eq!(play.play("a=2"), "a<-0#3!");
    }
}

#[test]
fn a_message_of_many_crashes_is_handled_alone() {
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        let start = "crash 0 2, crash 1 3, +4, join a, a=9";
        let check = |rest: &str, expect: &str| check_in(mode, &format!("{start}, {rest}"), expect);
        check("~1", "a<-0#1");
        check("isolated 1, ack 1", "a<-0#1 alone 1");
        check("ack 1, ~1, isolated 0, isolated 1, ~1", "a<-0#1 alone 1 a<-1#2");
        check("ack 1, isolated 1, ack 2", "a<-0#1 alone 1 a<-1#2 a<-2#3 a<-3#4");
        check("ack 1, isolated 1, nack 2 5", "a<-0#1 alone 1 a<-1#2 a<-2#3 a<-3#4");
        check("nack 1 5, ~5, isolated 1, ~5", "a<-0#1 alone 1 a<-1#2");
        check("nack 1 5, isolated 1, ack 2, ~5", "a<-0#1 alone 1 a<-1#2 a<-2#3 a<-3#4 a<-0#5/2");
        check("back 1, ack 2, isolated 1, back 3, isolated 1", "a<-0#1 a<-0#2! alone 1 a<-1#3 free 1 alone 1 a<-1#4!");
        check("ack 1, isolated 1, refuse 2, leave a", "a<-0#1 alone 1 a<-1#2 free 1");
        check("ack 1, remove 1", "a<-0#1 alone 1 a<-2#2 a<-3#3");
        check("ack 1, isolated 1, trim 2, ack 2", "a<-0#1 alone 1 a<-1#2 a<-2#3 a<-3#4 stale 2");
        check("ack 1, leave a, isolated 1, join b, b=1, isolated 1", "a<-0#1 alone 1 free 1 alone 1 b<-1#2");
        check("ack 1, leave a, join b, isolated 1, b=1, ack 2", "a<-0#1 alone 1 b<-1#2");
    }
}

#[test]
fn what_is_gone_is_forgotten() {
    for mode in [Mode::Shared, Mode::KeyShared, Mode::Exclusive] {
        check_in(mode, "join a, a=2, +4, trim 1, ack 1, ack 2", "a<-0#1 a<-1#2 stale 1");
        check_in(mode, "join a, a=9, +3, nack 1 5, trim 1, ~5, remove 1, ack 2", "a<-0#1 a<-1#2 a<-2#3 stale 2");
        check_in(mode, "join a, a=2, +3, back 1, trim 3, a=9, +1", "a<-0#1 a<-1#2 a<-3#3");
        check_in(mode, "+5, remove 1, join a, a=9, remove 4", "a<-0#1 a<-2#2 a<-3#3 a<-4#4");
    }
}

#[test]
fn a_key_has_one_consumer_and_its_order() {
    check_keyed("join a, a=9, +xyxy", "a<-0#1 a<-1#2 a<-2#3 a<-3#4");
    check_keyed("join a, join b, a=9, b=9, +xWxWx", "a<-0#1 b<-1#2 a<-2#3 b<-3#4 a<-4#5");
    check_keyed("join a, join b, a=9, b=1, +WxW, b=2", "b<-0#1 a<-1#2 b<-2#3");
}

#[test]
fn a_failed_message_stops_its_key_alone() {
    check_keyed(
        "join a, a=99, +xyxx, nack 1 5, +xy, ack 3, ack 4, ~5, +x, ack 6",
        "a<-0#1 a<-1#2 a<-2#3 a<-3#4 a<-5#5 a<-0#6/2 a<-4#7 a<-6#8",
    );
    // It waits until the others of its key are settled or come back, and goes before them.
    check_keyed("join a, a=99, +xx, back 1, nack 2 5, ack 3, ~5, +x, ack 4", "a<-0#1 a<-1#2 a<-0#3! a<-1#4/2 a<-2#5");
    check_keyed("join a, a=99, +xx, nack 1 5, back 2, ~5, ack 3", "a<-0#1 a<-1#2 a<-0#3/2 a<-1#4!");
    check_keyed("join a, a=99, +xx, nack 2 5, ~5, +x, ack 1, ack 3", "a<-0#1 a<-1#2 a<-1#3/2 a<-2#4");
}

#[test]
fn a_key_that_failed_in_an_earlier_run_goes_on_as_it_was() {
    let mut play = Play::new(Mode::KeyShared);
    play.known.marks.insert(0, Mark { attempts: 1, crashes: 0 });
    assert_eq!(play.play("+xxy, join a, a=9, ack 1"), "a<-0#1/2 a<-2#2 a<-1#3");
}

#[test]
fn messages_without_a_key_block_nobody() {
    check_keyed("join a, a=9, +..., nack 1 5, ack 2, +., ~5", "a<-0#1 a<-1#2 a<-2#3 a<-3#4 a<-0#5/2");
    check_keyed("join a, join b, a=9, b=9, +...", "a<-0#1 a<-1#2 a<-2#3");
}

#[test]
fn a_slot_moves_once_nothing_of_it_is_in_flight() {
    check_keyed("join a, a=9, +xWW, join b, b=9, +xWW, ack 2, ack 3", "a<-0#1 a<-1#2 a<-2#3 a<-3#4 b<-4#5 b<-5#6");
    check_keyed("join a, join b, a=9, b=9, +xW, leave b, +W", "a<-0#1 b<-1#2 a<-1#3!");
    check_keyed("join a, join b, a=9, b=9, +xW, leave b, +W, ack 3", "a<-0#1 b<-1#2 a<-1#3! a<-2#4");
}

#[test]
fn look_ahead_has_a_limit() {
    let mut play =
        Play::with(Terms { mode: Mode::KeyShared, in_flight_max: 100_000, ack_deadline_ms: None, paused: false });
    play.play(&format!("join a, a=1, +x, nack 1 5, a=9, +{}", "x".repeat(LOOK_AHEAD + 5)));
    assert_eq!((play.delivery.set_aside(), play.delivery.parked()), (LOOK_AHEAD - 1, 1));
    assert_eq!(play.play("+y, ~5, ack 2, ack 3"), "a<-0#2/2 a<-1#3 a<-2#4 a<-3#5 a<-4#6 a<-5#7 a<-6#8 a<-7#9");
    assert_eq!(play.delivery.set_aside(), LOOK_AHEAD - 7);
}

#[test]
fn slots_are_shared_out_evenly_and_few_move() {
    let mut keyed = Keyed::new();
    let mut owners: Vec<u32> = Vec::new();
    for seats in [vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3], vec![0, 2, 3], vec![2]] {
        keyed.share_out(&seats);
        let now = keyed.owners();
        let share = now.len() / seats.len();
        for seat in &seats {
            let owned = now.iter().filter(|owner| *owner == seat).count();
            assert!((share..=share + 1).contains(&owned), "{seats:?}: {seat} has {owned}");
        }
        let moved = owners.iter().zip(&now).filter(|(before, after)| before != after && seats.contains(before)).count();
        assert!(moved <= share + seats.len(), "{moved} moved to {seats:?}");
        owners = now;
    }
}

/// Just after the tables grew, when they are at their emptiest.
#[test]
fn a_message_takes_at_most_64_bytes() {
    for count in [57_500, 66_000, 1_000_000] {
        let (mut delivery, _, in_flight) = full(Mode::Shared, count);
        assert!(in_flight <= 64 * count, "{in_flight}");
        let parked = allocation_counter::measure(|| {
            for token in (1..=count as u64).map(Token) {
                assert!(delivery.extend(1, ConsumerId(0), token, 1_000 + token.0 % 7));
                delivery.begin_settle(ConsumerId(0), token).expect("a delivery");
                let until_ms = 5 + token.0.wrapping_mul(0x9E37_79B9) % 60_000;
                delivery.handle(1, Event::Parked { token, until_ms, why: Why::Nacked });
            }
        });
        assert_eq!((delivery.in_flight(), delivery.parked()), (0, count));
        let left = i64::try_from(in_flight).expect("bytes") + parked.bytes_current;
        assert!(left <= 64 * i64::try_from(count).expect("a count"), "{left}");
        let (_, _, in_flight) = full(Mode::KeyShared, count);
        assert!(in_flight <= 72 * count, "{in_flight}");
    }
}

/// A delivery with so many in flight, each of a key of its own, and the bytes that it takes.
fn full(mode: Mode, count: usize) -> (Delivery, Known, usize) {
    let keys = (0..count as u64).map(|n| Some(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let known = Known { keys, ..Play::new(mode).known };
    let mut delivery =
        Delivery::new(Terms { mode, in_flight_max: count, ack_deadline_ms: Some(1_000), paused: false }, Offset(0), 1);
    delivery.handle(0, Event::Join(ConsumerId(0)));
    delivery.handle(0, Event::Credit(ConsumerId(0), 1 << 40));
    let bytes = allocation_counter::measure(|| {
        while delivery.in_flight() < count {
            delivery.poll_action(0, &known).expect("a delivery");
        }
    });
    (delivery, known, usize::try_from(bytes.bytes_current).expect("bytes"))
}
