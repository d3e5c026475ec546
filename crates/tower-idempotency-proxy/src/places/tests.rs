use testkit::log::Log;

use super::*;

#[test]
fn a_client_has_half_of_the_places_and_all_have_no_more_than_there_are() {
    let places = Places::with(5);
    let client = |number| Some(IpAddr::from([10, 0, 0, number]));
    let of_one: Vec<_> = (0..3).map_while(|_| places.take(client(1))).collect();
    assert_eq!(of_one.len(), 3);
    // An address of IPv4 within IPv6 is the same client.
    let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    assert!(places.take(client(1)).is_none() && places.take(Some(mapped.into())).is_none());
    let others: Vec<_> = (0..2).map_while(|_| places.take(client(2))).collect();
    assert_eq!(others.len(), 2);
    assert!(places.take(client(3)).is_none() && places.are_taken());
    drop(of_one);
    assert!(places.take(client(3)).is_some() && places.take(client(1)).is_some());
    drop(others);
    // A network of IPv6 is one client, and one that is not known has no share.
    let of_network = |host: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]));
    let of_one: Vec<_> = (0..5).map_while(|host| places.take(of_network(host))).collect();
    let unknown: Vec<_> = (0..5).map_while(|_| places.take(None)).collect();
    assert_eq!((of_one.len(), unknown.len()), (3, 2));
    drop((of_one, unknown));
    assert!(places.lock().by_client.is_empty());
}

/// Takes so many places for the clients of these numbers; 0 is one that is not known.
fn taken(places: &Places, clients: &[(u8, usize)]) -> Vec<Place> {
    let takes = clients.iter().flat_map(|(number, count)| std::iter::repeat_n(*number, *count));
    takes.map(|number| places.take(client(number)).expect("there is room")).collect()
}

fn client(number: u8) -> Option<IpAddr> {
    (number > 0).then(|| IpAddr::from([10, 0, 0, number]))
}

#[test]
fn each_client_has_room_or_none_by_its_own_share_and_by_all_places() {
    // What is taken of how many; and whether the first, the second and an unknown client have room.
    for (most, clients, expected) in [
        (4, &[][..], [true, true, true]),
        // The own share is full, and there are places.
        (4, &[(1, 2)], [false, true, true]),
        (5, &[(1, 2)], [true, true, true]),
        (5, &[(1, 3)], [false, true, true]),
        (4, &[(1, 2), (2, 1)], [false, true, true]),
        // All are full, and the own share is not.
        (4, &[(1, 1), (2, 1), (0, 2)], [false, false, false]),
        (4, &[(0, 4)], [false, false, false]),
        (4, &[(1, 2), (2, 2)], [false, false, false]),
        (1, &[], [true, true, true]),
        (1, &[(1, 1)], [false, false, false]),
        // What is not known has no share, and takes none of a client's.
        (4, &[(0, 3)], [true, true, true]),
        (4, &[(0, 2), (1, 1)], [true, true, true]),
    ] {
        let places = Places::with(most);
        let _taken = taken(&places, clients);
        let found = [1, 2, 0].map(|number| places.take(client(number)).is_some());
        assert_eq!(found, expected, "{clients:?} of {most}");
    }
}

#[test]
fn the_reserve_is_left_of_few_files_and_many_have_a_bound() {
    for (files, expected) in [
        (0, LEAST),
        (RESERVE, LEAST),
        (RESERVE + 2 * LEAST, LEAST),
        (RESERVE + 2 * LEAST + 2, LEAST + 1),
        (1_024, 288),
        (RESERVE + 2 * MOST, MOST),
        (RESERVE + 2 * MOST + 2, MOST),
        (usize::MAX, MOST),
    ] {
        assert_eq!(of_files(files), expected, "{files}");
    }
}

#[test]
fn the_soft_limit_of_files_is_raised_to_the_hard_one() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Still more than the other tests need.
    let lower = maximum.map_or(65_536, |maximum| maximum - 1);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum }).unwrap();
    assert_eq!(files() as u64, maximum.unwrap_or(UNKNOWN as u64));
    assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: maximum, maximum });
    // So it is when there is nothing to raise.
    assert_eq!(files() as u64, maximum.unwrap_or(UNKNOWN as u64));
}

#[test]
fn few_places_are_said_with_how_many_one_client_has() {
    let log = Log::begin(tracing::Level::WARN);
    for (most, said) in [(8, Some("connections=8 of_one_client=4")), (255, Some("connections=255 of_one_client=128"))]
        .into_iter()
        .chain([(FEW, None), (FEW + 1, None)])
    {
        Places::with(most).warn_if_few();
        let lines = log.lines();
        assert_eq!(lines.len(), usize::from(said.is_some()), "{most}: {lines:?}");
        assert!(said.is_none_or(|said| lines[0].contains("few files") && lines[0].ends_with(said)), "{lines:?}");
    }
}

// Seeded faults: one place is taken, or given back, for many; a part of them is taken.
#[test]
fn many_places_are_taken_and_given_back_as_one() {
    let places = Places::with(8);
    let of_one = places.take_many(client(1), 3).unwrap();
    assert!(places.take_many(client(1), 2).is_none() && places.take_many(client(2), 5).is_none());
    let of_other = places.take_many(client(2), 4).unwrap();
    assert!(places.take_many(None, 2).is_none() && places.take_many(None, 0).is_some());
    assert_eq!(places.lock().all, 7);
    drop(of_one);
    assert!(places.take_many(client(1), 4).is_some());
    drop(of_other);
    assert!(places.lock().by_client.is_empty() && places.lock().all == 0);
}
