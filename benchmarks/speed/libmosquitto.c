/* The C library as a peer of the benchmark: jobs and answers as in cell.py, a line of JSON each. */

#include <cjson/cJSON.h>
#include <errno.h>
#include <mosquitto.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sem_t connected, subscribed, done;
static atomic_long counted;
static long wanted;
static double began_at, began_cpu;

static double clock_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void begin(void) {
    began_at = clock_of(CLOCK_MONOTONIC);
    began_cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

static void tell(long count) {
    double end = clock_of(CLOCK_MONOTONIC), cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - began_cpu;
    double rate = count / (end - began_at), each = 1e6 * cpu / (count ? count : 1);
    printf("{\"rate\": %.9g, \"cpu\": %.9g, \"end\": %.9f}\n", rate, each, end);
    fflush(stdout);
}

static void fail(const char *why) {
    printf("{\"error\": \"%s\"}\n", why);
    fflush(stdout);
    exit(1);
}

static int wait_for(sem_t *event, double limit) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)limit;
    int rc;
    while ((rc = sem_timedwait(event, &until)) && errno == EINTR) {
    }
    return rc == 0;
}

static void on_connect(struct mosquitto *mosq, void *data, int rc) {
    (void)mosq, (void)data;
    if (rc == 0) sem_post(&connected);
}

static void on_subscribe(struct mosquitto *mosq, void *data, int mid, int count, const int *granted) {
    (void)mosq, (void)data, (void)mid, (void)count, (void)granted;
    sem_post(&subscribed);
}

static void on_publish(struct mosquitto *mosq, void *data, int mid) {
    (void)mosq, (void)data, (void)mid;
    if (++counted == wanted) sem_post(&done);
}

static void on_message(struct mosquitto *mosq, void *data, const struct mosquitto_message *message) {
    (void)mosq, (void)data, (void)message;
    if (++counted == wanted) sem_post(&done);
}

static void on_last(struct mosquitto *mosq, void *data, const struct mosquitto_message *message) {
    (void)mosq, (void)data, (void)message;
    sem_post(&done);
}

static const char *text(const cJSON *object, const char *name) {
    return cJSON_GetStringValue(cJSON_GetObjectItem(object, name));
}

static double number(const cJSON *object, const char *name) {
    return cJSON_GetNumberValue(cJSON_GetObjectItem(object, name));
}

static struct mosquitto *open_client(const cJSON *place, const char *suffix, const char *ca) {
    char name[200];
    snprintf(name, sizeof name, "%s%s", text(place, "name"), suffix);
    struct mosquitto *mosq = mosquitto_new(name, true, NULL);
    mosquitto_int_option(mosq, MOSQ_OPT_PROTOCOL_VERSION, (int)number(place, "protocol"));
    mosquitto_int_option(mosq, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_int_option(mosq, MOSQ_OPT_RECEIVE_MAXIMUM, 65535); /* at QoS 2 it stops for good at its own 20 */
    mosquitto_username_pw_set(mosq, name, text(place, "token"));
    if (ca) mosquitto_tls_set(mosq, ca, NULL, NULL, NULL, NULL);
    mosquitto_connect_callback_set(mosq, on_connect);
    mosquitto_subscribe_callback_set(mosq, on_subscribe);
    return mosq;
}

static void connect_to(struct mosquitto *mosq, int port) {
    if (mosquitto_connect(mosq, "127.0.0.1", port, 60) || mosquitto_loop_start(mosq)) fail("not connected");
    if (!wait_for(&connected, 15)) fail("no CONNACK");
}

static void close_client(struct mosquitto *mosq) {
    mosquitto_disconnect(mosq);
    mosquitto_loop_stop(mosq, true);
    mosquitto_destroy(mosq);
}

static void do_job(const cJSON *job) {
    const cJSON *place = cJSON_GetObjectItem(job, "place");
    int qos = (int)number(job, "qos"), size = (int)number(job, "size"), port = (int)number(place, "port");
    long count = (long)number(job, "count");
    double limit = number(job, "limit");
    char topic[200], last[200], *payload = calloc(1, size);
    snprintf(topic, sizeof topic, "bench/%s", text(place, "name"));
    snprintf(last, sizeof last, "last/%s", text(place, "name"));
    counted = 0;
    wanted = count;
    sem_init(&connected, 0, 0), sem_init(&subscribed, 0, 0), sem_init(&done, 0, 0);
    struct mosquitto *mosq = open_client(place, "", text(place, "ca")), *watcher = NULL;
    if (!strcmp(text(job, "do"), "receive")) {
        mosquitto_message_callback_set(mosq, on_message);
        connect_to(mosq, port);
        mosquitto_subscribe(mosq, NULL, topic, qos);
        if (!wait_for(&subscribed, 15)) fail("no SUBACK");
        begin();
        printf("{\"ready\": \"%s\"}\n", topic);
        fflush(stdout);
        if (!wait_for(&done, limit)) fail("not all messages arrived");
        tell(count);
    } else {
        if (qos) {
            mosquitto_publish_callback_set(mosq, on_publish);
        } else {
            watcher = open_client(place, "-watcher", NULL);
            mosquitto_message_callback_set(watcher, on_last);
            connect_to(watcher, (int)number(job, "watch"));
            mosquitto_subscribe(watcher, NULL, last, 0);
            if (!wait_for(&subscribed, 15)) fail("no SUBACK");
        }
        connect_to(mosq, port);
        begin();
        for (long i = 0; i < count; i++) mosquitto_publish(mosq, NULL, topic, size, payload, qos, false);
        if (!qos) mosquitto_publish(mosq, NULL, last, size, payload, 0, false);
        wait_for(&done, limit);
        tell(qos ? (long)counted : count);
    }
    close_client(mosq);
    if (watcher) close_client(watcher);
    free(payload);
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    mosquitto_lib_init();
    printf("{\"stage\": \"imported\"}\n");
    fflush(stdout);
    while (getline(&line, &room, stdin) > 0) {
        cJSON *job = cJSON_Parse(line);
        do_job(job);
        cJSON_Delete(job);
    }
    return 0;
}
