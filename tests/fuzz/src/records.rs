//! The records of the guest boundary besides the output: setup, tick and restore.

use holeshot_abi::{
    Action, ChangeKind, INPUT_BYTES_MAX, InputStatus, PLAYERS_MAX, Setup, TickReader, TickRecord, read_restore,
    write_restore,
};

use crate::take::Take;

pub(crate) fn target(input: &[u8]) {
    let mut input = Take(input);
    let kind = input.u8() % 3;
    let bytes = input.rest();
    match kind {
        0 => setup(bytes),
        1 => tick(bytes),
        _ => {
            if let Ok((version, state)) = read_restore(bytes) {
                let mut written = Vec::new();
                write_restore(version, state, &mut written);
                assert_eq!(read_restore(&written), Ok((version, state)));
                assert_eq!(written.len(), bytes.len());
            }
        }
    }
}

/// A setup that can be read and has fields within their limits is written with the same meaning.
fn setup(bytes: &[u8]) {
    let Ok(setup) = Setup::read(bytes) else { return };
    assert!((1..=PLAYERS_MAX).contains(&setup.players.len()));
    let texts = setup.players.iter().map(|player| player.name.len() + player.data.len());
    assert!(setup.options.len() + texts.sum::<usize>() <= bytes.len());
    let mut written = Vec::new();
    if setup.write(&mut written).is_ok() {
        assert_eq!(Setup::read(&written), Ok(setup));
        assert_eq!(written.len(), bytes.len());
    }
}

/// A tick that can be read is written with the same meaning.
fn tick(bytes: &[u8]) {
    let Ok(reader) = TickReader::read(bytes) else { return };
    assert!(reader.players() <= PLAYERS_MAX);
    let inputs: Vec<_> = reader.inputs().collect();
    assert_eq!(inputs.len(), reader.players());
    let stride = inputs.iter().map(|input| input.bytes.len()).max().unwrap_or(0).next_multiple_of(4);
    assert!(stride <= INPUT_BYTES_MAX);
    let mut record = TickRecord::default();
    record.begin(reader.frame, reader.players(), stride);
    for (player, input) in inputs.iter().enumerate() {
        assert!(record.set_input(player, *input));
        assert!(matches!(input.status, InputStatus::Absent | InputStatus::Fresh | InputStatus::Repeated));
    }
    for change in reader.changes() {
        assert!(usize::from(change.player) < reader.players());
        assert!(matches!(change.kind, ChangeKind::Joined | ChangeKind::Left(_)));
        assert!(record.push_change(change));
    }
    let actions: Vec<Action<'_>> = reader.actions().collect();
    // A reader takes more than a writer writes.
    let written = actions.iter().take_while(|action| record.push_action(**action)).count();
    let again = TickReader::read(record.bytes()).expect("what was written can be read");
    assert_eq!(again.frame, reader.frame);
    assert!(again.inputs().eq(inputs) && again.changes().eq(reader.changes()));
    assert!(again.actions().eq(actions.into_iter().take(written)));
}
