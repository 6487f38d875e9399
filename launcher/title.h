#pragma once

/*
 * The title of the process: the command line that `ps` shows, and the short name beside it.
 *
 * Linux reads a process's command line from the process's own memory, from where the kernel laid
 * the words of main() and, behind them, the environment. Titles are written over both, so whatever
 * points there must point elsewhere first.
 */

/* Copy the words and the environment to memory of their own, and have argv and environ point there;
 * titles can be set from now on. The place of the words is kept, and their text, so that nothing is
 * seen from outside. Once, first thing in main(); without memory there will be no titles. */
void dragon_title_prepare(int argc, char **argv);

/* Show text as the command line and, cut to 15 bytes, as the name (/proc/PID/comm) of the calling
 * thread, which is the process's if it is the main one. text is UTF-8 and is cut where there is no
 * more room: what the words and the environment took up when the process was executed. A copy made
 * by fork() has the same room. Not from two threads at a time. */
void dragon_title_set(const char *text);
