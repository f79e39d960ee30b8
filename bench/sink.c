/* The limit of the machine: a bare single-threaded C-STORE sink, to measure what receiving and writing cost by themselves.
 *
 *   sink PORT FOLDER [-s | -p]          cc -O2 -o sink sink.c
 *
 * It accepts the first transfer syntax of every presentation context, writes each data set behind an empty Part 10 head,
 * renames the file to its SOP Instance UID and answers Success. It checks nothing, digests nothing and indexes nothing.
 *
 *   (none)  nothing is synced
 *   -s      the usual durable way: create, write, fsync, rename, fsync the folder, answer
 *   -p      slots: files created and synced beforehand; write, fdatasync, answer, and only then rename
 *
 * One poll() loop, PDUs of 131072 bytes, at most 256 connections. It trusts its sender: for benchmarks on the loopback
 * interface only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 256,
    RECEIVE_BUFFER = 1 << 18,
    PDU_LENGTH_MAX = 131072,
    COMMAND_MAX = 1024,
    UID_MAX = 64,
    SLOTS_A_POOL = 1024,
    PART10_HEAD = 300,
};

enum { PDU_ASSOCIATE_RQ = 1, PDU_ASSOCIATE_AC = 2, PDU_P_DATA_TF = 4, PDU_RELEASE_RQ = 5, PDU_RELEASE_RP = 6 };
enum { PDV_COMMAND = 1, PDV_LAST = 2 };
enum { C_STORE_RSP = 0x8001, C_ECHO_RQ = 0x0030, C_ECHO_RSP = 0x8030 };

enum mode { UNSYNCED, SYNCED, SLOTS };

struct connection {
    int socket;
    int file;
    int slot;
    int filled;             /* bytes in buffer */
    uint8_t *buffer;
    uint32_t pdu_left;      /* of the P-DATA-TF being read */
    uint32_t pdv_left;      /* of the PDV in it */
    uint8_t context_id, pdv_flags;
    uint8_t command[COMMAND_MAX];
    int command_length;
    char sop_class_uid[UID_MAX + 2], sop_instance_uid[UID_MAX + 2];
    uint16_t message_id, command_field;
};

static struct connection connections[CONNECTIONS_MAX];
static enum mode mode;
static const char *folder;
static int folder_descriptor, slots_made, slots_used;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int socket, const uint8_t *bytes, int length) {
    if (write(socket, bytes, length) != length) perror("send");
}

static uint16_t be16(const uint8_t *p) { return p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static void put_be32(uint8_t *p, uint32_t value) {
    p[0] = value >> 24, p[1] = value >> 16, p[2] = value >> 8, p[3] = value;
}

/* An item or sub-item of PS3.8 Table 9-12: type, reserved, length, value. */
static int put_item(uint8_t *p, int type, const void *value, int length) {
    p[0] = type, p[1] = 0, p[2] = length >> 8, p[3] = length;
    memcpy(p + 4, value, length);
    return 4 + length;
}

/* Answer one proposed presentation context: accepted, with its first transfer syntax. */
static int put_context_result(uint8_t *out, const uint8_t *proposed, int length) {
    for (int at = 4; at + 4 <= length; at += 4 + be16(proposed + at + 2)) {
        if (proposed[at] != 0x40) continue;
        uint8_t value[4 + 4 + UID_MAX + 2] = {proposed[0]};
        int syntax_length = be16(proposed + at + 2);
        if (syntax_length > UID_MAX) return 0;
        return put_item(out, 0x21, value, 4 + put_item(value + 4, 0x40, proposed + at + 4, syntax_length));
    }
    return 0;
}

static void accept_association(struct connection *c, const uint8_t *request, int length) {
    static uint8_t out[1 << 16];
    const char *application_context = "1.2.840.10008.3.1.1.1";
    memcpy(out + 6, request, 68); /* protocol version and AE titles go back as they came */
    int n = 6 + 68;
    n += put_item(out + n, 0x10, application_context, strlen(application_context));
    for (int at = 68; at + 4 <= length; at += 4 + be16(request + at + 2))
        if (request[at] == 0x20) n += put_context_result(out + n, request + at + 4, be16(request + at + 2));
    uint8_t user_information[64], maximum_length[4];
    put_be32(maximum_length, PDU_LENGTH_MAX);
    int u = put_item(user_information, 0x51, maximum_length, 4);
    u += put_item(user_information + u, 0x52, "1.2.3", 5);
    n += put_item(out + n, 0x50, user_information, u);
    out[0] = PDU_ASSOCIATE_AC, out[1] = 0;
    put_be32(out + 2, n - 6);
    send_all(c->socket, out, n);
}

/* A command element, Implicit VR Little Endian (PS3.7 §6.3.1); all are of group 0000. */
static int put_element(uint8_t *p, int element, const void *value, int length) {
    p[0] = p[1] = 0, p[2] = element, p[3] = element >> 8;
    p[4] = length, p[5] = length >> 8, p[6] = p[7] = 0;
    memcpy(p + 8, value, length);
    return 8 + length;
}

static int put_uid(uint8_t *p, int element, const char *uid) {
    int length = strlen(uid);
    return put_element(p, element, uid, length + (length & 1)); /* the field behind it holds the NUL */
}

static void respond(struct connection *c, uint16_t command_field) {
    const uint16_t no_data_set = 0x0101, success = 0;
    uint8_t out[512];
    int n = 12 + 12;
    n += put_uid(out + n, 0x0002, c->sop_class_uid);
    n += put_element(out + n, 0x0100, &command_field, 2);
    n += put_element(out + n, 0x0120, &c->message_id, 2);
    n += put_element(out + n, 0x0800, &no_data_set, 2);
    n += put_element(out + n, 0x0900, &success, 2);
    if (command_field == C_STORE_RSP) n += put_uid(out + n, 0x1000, c->sop_instance_uid);
    uint32_t group_length = n - 24;
    put_element(out + 12, 0x0000, &group_length, 4);
    out[0] = PDU_P_DATA_TF, out[1] = 0;
    put_be32(out + 2, n - 6);
    put_be32(out + 6, n - 10);
    out[10] = c->context_id, out[11] = PDV_COMMAND | PDV_LAST;
    send_all(c->socket, out, n);
}

static void name_slot(char *path, int size, int slot) { snprintf(path, size, "%s/slot-%d", folder, slot); }

static void make_slots(void) {
    char path[4096];
    for (int i = 0; i < SLOTS_A_POOL; i++) {
        name_slot(path, sizeof path, slots_made++);
        close(open(path, O_WRONLY | O_CREAT, 0644));
    }
    fsync(folder_descriptor);
}

static void begin_instance(struct connection *c) {
    char path[4096];
    if (mode == SLOTS) {
        if (slots_used == slots_made) make_slots();
        name_slot(path, sizeof path, c->slot = slots_used++);
    } else {
        snprintf(path, sizeof path, "%s/%d.part", folder, c->socket);
    }
    c->file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    uint8_t head[PART10_HEAD] = {0};
    memcpy(head + 128, "DICM", 4);
    if (c->file < 0 || write(c->file, head, sizeof head) < 0) die(path);
}

static void finish_instance(struct connection *c) {
    char from[4096], to[4096];
    snprintf(to, sizeof to, "%s/%s", folder, c->sop_instance_uid);
    if (mode == SLOTS) {
        fdatasync(c->file);
        respond(c, C_STORE_RSP);
        close(c->file);
        name_slot(from, sizeof from, c->slot);
        rename(from, to);
        return;
    }
    snprintf(from, sizeof from, "%s/%d.part", folder, c->socket);
    if (mode == SYNCED) fsync(c->file);
    close(c->file);
    rename(from, to);
    if (mode == SYNCED) fsync(folder_descriptor);
    respond(c, C_STORE_RSP);
}

static void take_uid(char *field, const uint8_t *value, int length) {
    if (length > UID_MAX) length = UID_MAX;
    memcpy(field, value, length);
    field[length] = field[length + 1] = 0;
}

static void handle_command(struct connection *c) {
    for (int at = 0; at + 8 <= c->command_length;) {
        const uint8_t *p = c->command + at;
        int element = p[2] | p[3] << 8, length = p[4] | p[5] << 8;
        if (element == 0x0002) take_uid(c->sop_class_uid, p + 8, length);
        if (element == 0x1000) take_uid(c->sop_instance_uid, p + 8, length);
        if (element == 0x0100) memcpy(&c->command_field, p + 8, 2);
        if (element == 0x0110) memcpy(&c->message_id, p + 8, 2);
        at += 8 + length;
    }
    c->command_length = 0;
    if (c->command_field == C_ECHO_RQ) respond(c, C_ECHO_RSP);
    else begin_instance(c);
}

static void take_fragment(struct connection *c, const uint8_t *bytes, int length) {
    if (c->pdv_flags & PDV_COMMAND) {
        if (c->command_length + length > COMMAND_MAX) die("command set too long");
        memcpy(c->command + c->command_length, bytes, length);
        c->command_length += length;
    } else if (write(c->file, bytes, length) < 0) {
        die("write");
    }
    c->pdv_left -= length;
    c->pdu_left -= length;
    if (c->pdv_left || !(c->pdv_flags & PDV_LAST)) return;
    if (c->pdv_flags & PDV_COMMAND) handle_command(c);
    else finish_instance(c);
}

static void handle_pdu(struct connection *c, int type, const uint8_t *body, int length) {
    if (type == PDU_ASSOCIATE_RQ) accept_association(c, body, length);
    if (type == PDU_RELEASE_RQ) {
        const uint8_t reply[10] = {PDU_RELEASE_RP, 0, 0, 0, 0, 4};
        send_all(c->socket, reply, sizeof reply);
    }
}

/* Take as much of the buffer as can be understood; keep the rest, at most one header, for the next read. */
static void take_bytes(struct connection *c) {
    int at = 0;
    for (;;) {
        int have = c->filled - at;
        const uint8_t *p = c->buffer + at;
        if (c->pdv_left) {
            int length = have < (int)c->pdv_left ? have : (int)c->pdv_left;
            if (length <= 0) break;
            at += length;
            take_fragment(c, p, length);
        } else if (c->pdu_left) {
            if (have < 6) break;
            c->pdv_left = be32(p) - 2;
            c->context_id = p[4], c->pdv_flags = p[5];
            c->pdu_left -= 6;
            at += 6;
        } else {
            if (have < 6) break;
            int length = be32(p + 2);
            if (p[0] == PDU_P_DATA_TF) {
                c->pdu_left = length;
                at += 6;
                continue;
            }
            if (have - 6 < length) break;
            handle_pdu(c, p[0], p + 6, length);
            at += 6 + length;
        }
    }
    memmove(c->buffer, c->buffer + at, c->filled - at);
    c->filled -= at;
}

static void take_connection(int listener) {
    int on = 1, socket = accept(listener, NULL, NULL);
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = &connections[i];
        if (c->socket >= 0) continue;
        uint8_t *buffer = c->buffer ? c->buffer : malloc(RECEIVE_BUFFER);
        *c = (struct connection){.socket = socket, .buffer = buffer};
        return;
    }
    close(socket);
}

static int listen_on(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) die("listen");
    return listener;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: sink PORT FOLDER [-s | -p]\n");
        return 2;
    }
    folder = argv[2];
    mode = argc < 4 ? UNSYNCED : argv[3][1] == 's' ? SYNCED : SLOTS;
    folder_descriptor = open(folder, O_RDONLY);
    if (folder_descriptor < 0) die(folder);
    if (mode == SLOTS) make_slots();
    for (int i = 0; i < CONNECTIONS_MAX; i++) connections[i].socket = -1;
    int listener = listen_on(atoi(argv[1]));
    for (;;) {
        struct pollfd polled[CONNECTIONS_MAX + 1] = {{listener, POLLIN, 0}};
        struct connection *behind[CONNECTIONS_MAX + 1];
        int count = 1;
        for (int i = 0; i < CONNECTIONS_MAX; i++) {
            if (connections[i].socket < 0) continue;
            behind[count] = &connections[i];
            polled[count++] = (struct pollfd){connections[i].socket, POLLIN, 0};
        }
        if (poll(polled, count, -1) < 0) die("poll");
        if (polled[0].revents) take_connection(listener);
        for (int i = 1; i < count; i++) {
            struct connection *c = behind[i];
            if (!polled[i].revents) continue;
            int got = read(c->socket, c->buffer + c->filled, RECEIVE_BUFFER - c->filled);
            if (got <= 0) {
                close(c->socket);
                c->socket = -1;
                continue;
            }
            c->filled += got;
            take_bytes(c);
        }
    }
}
