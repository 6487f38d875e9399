#pragma once

/*
 * The seed: a copy of this process from before Python exists. It does nothing but wait to be asked
 * for a further copy of itself, a sprout, which goes on in main() as if it had been executed with
 * other words and another environment; dragon_overlay/seed.py asks. A sprout costs no exec, knows
 * nothing of what the program has done meanwhile, and is no child that the program could wait for:
 * it is the seed's child, and the seed is hidden from wait().
 *
 * A few pages, no threads, no open files; it ends with the process that planted it, or when its
 * socket closes, as at an exec. It is in a process group of its own, so that it outlives a group
 * that is killed, and ends and removes what the planter could not.
 *
 * To have all processes of the planter's node killed when it has been killed: send "node", and with
 * it the file of the node's default pool. They end themselves, but for those that are stopped or
 * have closed what they did not open.
 *
 * To have a folder removed when the planter has been killed, or has ended without doing that
 * itself: send "keep", uint32 size of the path in bytes, the path, in one piece. Another path takes
 * its place.
 *
 * A planter that is not allowed any more what the seed is allowed is heard in none of this: who has
 * given up rights does not have the seed remove or kill what it could not.
 *
 * To have a sprout: send the 4 bytes "more" to the seed's socket, and with them one end of a socket
 * pair of packets; then, to the other end, one packet
 *     uint32 size of what follows, in bytes; uint32 n_words; uint32 n_variables
 * and packets of at most DRAGON_SEED_PACKET_BYTES that hold together
 *     the words and then the variables ("NAME=value"), each with its NUL
 * The sprout keeps that end as descriptor DRAGON_SEED_SPROUT_FD. If it cannot be made, it is told
 * errno by 4 bytes, or sees the end closed.
 */

#include <stdbool.h>

#define DRAGON_SEED_PACKET_BYTES 65536
#define DRAGON_SEED_SPROUT_FD 3
#define DRAGON_SEED_MAX_PATH_BYTES 1024

enum {
    DRAGON_SEED_SPROUTED = 1, /* the caller is a sprout, and has other words */
};

/* Plant the seed. To be called before anything else has a thread or Python. 0: it is planted, or
 * cannot be (dragon_seed_error). DRAGON_SEED_SPROUTED: in a sprout, with its words, which are
 * never freed. */
int dragon_seed_plant(int *argc, char ***argv);

/* The seed's socket, -1 without a seed; and why there is none, -errno. */
int dragon_seed_socket(void);
int dragon_seed_error(void);

/* False if this process is not allowed any more to do what the seed may. Then the seed refuses
 * (-EPERM in the place of a sprout's answer): who has given up rights does not get them back here.
 */
bool dragon_seed_is_like_us(void);
