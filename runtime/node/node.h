#pragma once

/*
 * Node: everything of the runtime that one machine shares, and this process's
 * part in it: the default pool, the table of processes, this process's slot,
 * the runtime threads.
 *
 * The first process of a program opens a new node, when it first needs one, and
 * is its head; children
 * that it or its descendants start join it through the inherited file of the
 * default pool. When the head ends, so do they all.
 *
 * The runtime threads are C threads that block all signals, are unknown to
 * Python, sleep unless there is work, and show by name in ps -T:
 *   dragon/memory     asks the system for memory ahead of its use; gives back
 *                     what is idle, above DRAGON_POOL_HIGH_WATER_BYTES; takes
 *                     back the blocks of dead processes
 *   dragon/channels   answers this process's doorbell: makes the file
 *                     descriptors of its pollers readable
 *   dragon/watch      the supervisor: a pidfd for each child that was started
 *                     here, and for the head and a parent to follow; the head's also
 *                     for forked copies and for children whose parent has ended
 * The head has all three as soon as it has a node; other processes have
 * dragon/watch, and the others from the first operation that needs them.
 *
 * A process that was forked (os.fork, start method "fork") shares the node's
 * memory, has none of the threads until it needs them, and takes a slot of its
 * own before its first operation that needs one, or has got it from its parent.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct dragon_channel;
struct dragon_node;
struct dragon_pool;
struct dragon_poller;

struct dragon_node_options {
    int attach_fd;      /* the default pool of the node to join; -1: open a new node */
    bool start_threads; /* false: none of the runtime threads, and no following of the head */
    int64_t idle_ns;    /* memory that nobody used so long is given back; 0: 5 s */
};

/* ---- lifetime ---- */

/* Open or join a node and make it this process's current one. With threads, the
 * first of them opens a new node while the caller goes on, so 0 means only that it
 * has begun; dragon_node_current waits for it, and tells whether it could be opened. attach_fd is
 * consumed, also on failure. -EBUSY: there is a current one. -EAGAIN: no thread could be started.
 * Without threads also what dragon_node_error tells. */
int dragon_node_open(const struct dragon_node_options *options, struct dragon_node **node_out);

/* Say how to open this process's node when it is first needed. Nothing is done
 * yet: a program that needs no node has no thread and no descriptor of ours. */
void dragon_node_plan(const struct dragon_node_options *options);

/* Begin to open the planned node, if that has not been done: it will be needed
 * soon. Does not wait. */
void dragon_node_begin(void);

/* The node of this process; opens the planned one and waits for it. NULL: none
 * is planned, or it could not be opened. Borrowed. */
struct dragon_node *dragon_node_current(void);

/* The same if it is open; NULL: not, or not yet. Opens nothing and does not wait. */
struct dragon_node *dragon_node_if_open(void);

/* Leave the node: this process ends cleanly. Blocks that it holds are freed, but for
 * those in messages that it has sent and nobody has received yet.
 * Its objects must not be used after this. */
void dragon_node_leave(void);

/* The same while other threads of this process may be in the middle of using the pool: nothing
 * is freed under their hands. Who watches this process does that when it is gone. */
void dragon_node_leave_threads_behind(void);

/* For a process that is no member: kill every process of its session that was started as part of
 * the node whose default pool is behind fd, which is consumed. To be called when the head has
 * ended: its members' watch threads do that themselves, but a process may be stopped, or have
 * closed their descriptors. Also allowed if there is no such node.
 * The session is what this can be abused in: a member that has fewer rights than the caller could
 * write any process into the table. */
void dragon_node_end_members(int fd);

/* Why there is no node although one was to be opened. 0: none was. -EBADMSG:
 * attach_fd is no pool of a node. -ESRCH: its head has ended. -ENOMEM, ... */
int dragon_node_error(void);

/* ---- use; any thread ---- */

/* Borrowed. The first call makes the memory thread prefault the pool. */
struct dragon_pool *dragon_node_pool(struct dragon_node *node);

/* Random, drawn when the node was opened; in the handles of its pool's blocks. */
uint64_t dragon_node_id(const struct dragon_node *node);

/* True in the process that opened the node. */
bool dragon_node_is_head(const struct dragon_node *node);

/* To be called before the pool's file is handed to a child. -errno: /proc
 * cannot be read. */
int dragon_node_invite(struct dragon_node *node);

/* Who holds this process's blocks: DRAGON_HOLDER_FIRST_SLOT + its slot. Claims
 * a slot if it has none. -EAGAIN: the table is full. */
int dragon_node_holder(struct dragon_node *node, uint32_t *holder_out);

/* Where this process's slot is, while it has one; DRAGON_NODE_NO_SLOT: not yet, or it has
 * left, or it is a forked copy that has none yet. For those who ask very often and then
 * ask dragon_node_holder. Borrowed; good until the process ends. */
const _Atomic uint32_t *dragon_node_slot(const struct dragon_node *node);
#define DRAGON_NODE_NO_SLOT UINT32_MAX

/* Watch a child of this process: when it dies uncleanly, take back what it
 * held. -ESRCH: there is no such process (any more). -EBADF: the program has closed the
 * runtime's descriptor. -EMFILE, -ENFILE; -ENOSPC, -ENOMEM: the system's limits. */
int dragon_node_watch_child(struct dragon_node *node, int32_t pid);

/* End this process (SIGKILL) as soon as process pid ends. -ESRCH: it has. */
int dragon_node_follow(struct dragon_node *node, int32_t pid);

/* ---- who is there, and who has died (memory/death.h) ---- */

/* This process's number. As dragon_node_holder. */
int dragon_node_number(struct dragon_node *node, uint64_t *number_out);

/* Give this process its name for people, UTF-8; what is longer than 27 bytes is cut. As
 * dragon_node_holder. */
int dragon_node_set_name(struct dragon_node *node, const char *name);

/* False: the process of that number has ended. True for some time after that, until its
 * supervisor has noticed, or dragon_node_look_for. Never blocks. */
bool dragon_node_has(struct dragon_node *node, uint64_t number);

/* Look whether the process of that number has ended although nobody noticed: its
 * supervisor may have ended, too. Some system calls. */
void dragon_node_look_for(struct dragon_node *node, uint64_t number);

/* Look which processes have ended, and take back what they had: afterwards, all that
 * a process which has ended before this call leaves to others has happened. Some system calls
 * a process. */
void dragon_node_settle(struct dragon_node *node);

#define DRAGON_NODE_NAME_BYTES 28

/* The name that a process had which has died, "" if that is not known. */
void dragon_node_name_of_dead(struct dragon_node *node, uint64_t death,
                              char name_out[DRAGON_NODE_NAME_BYTES]);

/* ---- forking ---- */

/* A fork of the calling thread, between its two halves. */
struct dragon_node_fork {
    uint32_t holder; /* that the copy will be */
    /* private */
    uint32_t outer_slot; /* of the fork that this one came in the middle of */
};

/* Before this thread forks: the copy will be fork->holder, and what
 * the caller opens in that name until the fork is the copy's; the first thing that the
 * copy does is to make the slot its own (dragon_node_slot there; DRAGON_NODE_NO_SLOT: its
 * parent was killed before that, and it has none of that). -EAGAIN: the table is full. A fork
 * that fails, and a copy that is killed in those microseconds, keep theirs in use until this
 * process ends. Several threads may be here at once; forks of one thread nest (a signal
 * handler that forks). */
int dragon_node_before_fork(struct dragon_node *node, struct dragon_node_fork *fork);

/* After it, in this process, before anything that the copy may outlive: waits until that
 * has made its slot its own, usually less than a millisecond; 2 s at the most, if it is
 * stopped, or was killed, or the fork failed, and there are other children. */
void dragon_node_after_fork(struct dragon_node *node, const struct dragon_node_fork *fork);

/* ---- pollers: a file descriptor that is readable while a channel has messages ---- */

/* A poller of a channel of the node's pool, which stays open until
 * dragon_poller_close. Once the channel was destroyed, the descriptor is readable
 * for good. -EMFILE, -EAGAIN, -ENOMEM. */
int dragon_poller_open(struct dragon_node *node, struct dragon_channel *channel,
                       struct dragon_poller **poller_out);

/* Close the poller and its descriptor. Nobody waits for that any more. */
void dragon_poller_close(struct dragon_poller *poller);

/* True in a forked copy of the process that opened the poller. There it does
 * nothing and can only be closed: the descriptor is shared with the parent. */
bool dragon_poller_is_inherited(const struct dragon_poller *poller);

/* The descriptor; borrowed, for poll, select, epoll; not to be read. */
int dragon_poller_fd(const struct dragon_poller *poller);

/* Make the descriptor say what the channel says now. To be called before it is
 * waited for and after messages were taken through the channel. */
void dragon_poller_update(struct dragon_poller *poller);
