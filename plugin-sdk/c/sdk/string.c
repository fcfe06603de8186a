/// The part of the C library that plugins have, and that the compiler counts on.
#include <stdint.h>

#include "string.h"

/// Keeps the compiler from making of a loop the call of the function that it is in.
#define PLAIN __attribute__((no_builtin))

// WebAssembly has instructions for these three, and the builtins become them.
void *memcpy(void *to, const void *from, size_t count)
{
    return __builtin_memmove(to, from, count);
}

void *memmove(void *to, const void *from, size_t count)
{
    return __builtin_memmove(to, from, count);
}

void *memset(void *to, int byte, size_t count)
{
    return __builtin_memset(to, byte, count);
}

PLAIN int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < count; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

PLAIN void *memchr(const void *in, int byte, size_t count)
{
    const uint8_t *at = in;
    for (size_t i = 0; i < count; i++)
        if (at[i] == (uint8_t)byte)
            return (void *)(at + i);
    return NULL;
}

PLAIN size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

PLAIN int strcmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++)
        ;
    return (uint8_t)*a - (uint8_t)*b;
}

PLAIN int strncmp(const char *a, const char *b, size_t count)
{
    for (; count && *a && *a == *b; a++, b++, count--)
        ;
    return count ? (uint8_t)*a - (uint8_t)*b : 0;
}

PLAIN char *strchr(const char *in, int character)
{
    for (;; in++) {
        if (*in == (char)character)
            return (char *)in;
        if (!*in)
            return NULL;
    }
}

PLAIN char *strrchr(const char *in, int character)
{
    char *last = NULL;
    for (;; in++) {
        if (*in == (char)character)
            last = (char *)in;
        if (!*in)
            return last;
    }
}

PLAIN char *strstr(const char *in, const char *text)
{
    size_t length = strlen(text);
    for (;; in++) {
        if (strncmp(in, text, length) == 0)
            return (char *)in;
        if (!*in)
            return NULL;
    }
}
