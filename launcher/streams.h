#pragma once

/*
 * Descriptors 0, 1 and 2 when the program was started with some of them closed.
 *
 * Python must find them closed (sys.stdin is None then), and what dragon opens before Python must
 * not land on them, or print() would write into it.
 */

struct dragon_streams {
    int held[3]; /* descriptors that fill the gaps */
    int n_held;
};

/* Fill the gaps among 0, 1 and 2. */
void dragon_streams_hold(struct dragon_streams *streams);

/* Open the gaps again. */
void dragon_streams_release(struct dragon_streams *streams);
