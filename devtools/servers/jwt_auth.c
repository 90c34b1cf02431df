/* A plugin for Mosquitto 2.0 (plugin API 5) for the tests: accepts a JWT as password (MQTT 3.1.1 and 5) or by the
 * authentication method OAUTH2-JWT (MQTT 5; at CONNECT and to re-authenticate), and ends a connection when its token
 * expires. The signature is checked with OpenSSL, because libjwt 1.10 rejects the type "at+jwt" (RFC 9068).
 * Options: plugin_opt_key FILE (public key, PEM; may repeat; RSA for RS256, EC P-256 for ES256),
 *          plugin_opt_aud STRING (the required audience),
 *          plugin_opt_on_expiry kick|none,
 *          plugin_opt_database FILE, plugin_opt_die FILE: once the file "die" exists, the broker kills itself with
 *          SIGKILL right after it has saved its database, so that it has saved all that it acknowledged. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#define METHOD "OAUTH2-JWT"
struct session { struct mosquitto *client; char *id; time_t exp; struct session *next; };
static mosquitto_plugin_id_t *plugin_id;
static struct session *sessions;
static EVP_PKEY *keys[8]; static int n_keys;
static const char *aud;
static bool kick = true;
static const char *database, *die;

static unsigned char *b64url(const char *in, size_t n, size_t *out_len)
{
	unsigned char *out = malloc(n + 1); unsigned acc = 0; int bits = 0; size_t k = 0;
	for(size_t i = 0; i < n; i++){
		const char *abc = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
		const char *p = in[i] ? strchr(abc, in[i]) : NULL;
		if(!p){ free(out); return NULL; }
		acc = acc << 6 | (unsigned)(p - abc); bits += 6;
		if(bits >= 8) out[k++] = (unsigned char)(acc >> (bits -= 8));
	}
	out[k] = 0; *out_len = k;
	return out;
}

static bool signature_ok(EVP_PKEY *key, const char *alg, const char *msg, size_t msg_len, const unsigned char *sig, size_t sig_len)
{
	unsigned char der[128], *p = der; bool ok;
	if(EVP_PKEY_base_id(key) == EVP_PKEY_EC){ /* JOSE's r||s to DER */
		if(strcmp(alg, "ES256") || sig_len != 64) return false;
		ECDSA_SIG *s = ECDSA_SIG_new();
		ECDSA_SIG_set0(s, BN_bin2bn(sig, 32, NULL), BN_bin2bn(sig + 32, 32, NULL));
		sig_len = (size_t)i2d_ECDSA_SIG(s, &p); sig = der;
		ECDSA_SIG_free(s);
	}else if(EVP_PKEY_base_id(key) != EVP_PKEY_RSA || strcmp(alg, "RS256")) return false;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	ok = EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1
		&& EVP_DigestVerify(ctx, sig, sig_len, (const unsigned char *)msg, msg_len) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* The claims of a correctly signed token, or NULL */
static cJSON *verified(const char *tok, size_t len)
{
	const char *d1 = memchr(tok, '.', len), *d2 = d1 ? memchr(d1 + 1, '.', len - (size_t)(d1 + 1 - tok)) : NULL;
	if(!d2) return NULL;
	size_t hl = 0, cl = 0, sl = 0; bool ok = false;
	unsigned char *h = b64url(tok, (size_t)(d1 - tok), &hl), *c = b64url(d1 + 1, (size_t)(d2 - d1 - 1), &cl);
	unsigned char *s = b64url(d2 + 1, len - (size_t)(d2 + 1 - tok), &sl);
	cJSON *head = h ? cJSON_ParseWithLength((char *)h, hl) : NULL, *claims = c ? cJSON_ParseWithLength((char *)c, cl) : NULL;
	const char *alg = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(head, "alg"));
	for(int i = 0; alg && s && i < n_keys && !ok; i++) ok = signature_ok(keys[i], alg, tok, (size_t)(d2 - tok), s, sl);
	free(h); free(c); free(s); cJSON_Delete(head);
	if(!ok){ cJSON_Delete(claims); return NULL; }
	return claims;
}

static bool aud_matches(const cJSON *claim)
{
	const cJSON *one;
	if(!aud || (cJSON_IsString(claim) && !strcmp(claim->valuestring, aud))) return true;
	if(cJSON_IsArray(claim)) cJSON_ArrayForEach(one, claim) if(cJSON_IsString(one) && !strcmp(one->valuestring, aud)) return true;
	return false;
}

static time_t when(const cJSON *claims, const char *name)
{
	const cJSON *c = cJSON_GetObjectItemCaseSensitive(claims, name);
	return cJSON_IsNumber(c) ? (time_t)c->valuedouble : 0;
}

static void forget(struct mosquitto *client, const char *id)
{
	for(struct session **p = &sessions; *p; ){
		struct session *s = *p;
		if(s->client == client || (id && !strcmp(s->id, id))){ *p = s->next; free(s->id); free(s); }
		else p = &s->next;
	}
}

static int check(struct mosquitto *client, const char *what, const char *token, size_t len)
{
	const char *id = mosquitto_client_id(client), *why = NULL;
	time_t now = time(NULL);
	cJSON *claims = token ? verified(token, len) : NULL;
	time_t exp = when(claims, "exp");

	if(!claims) why = "malformed or bad signature";
	else if(!exp) why = "no exp";
	else if(exp <= now) why = "expired";
	else if(when(claims, "nbf") > now) why = "not yet valid";
	else if(!aud_matches(cJSON_GetObjectItemCaseSensitive(claims, "aud"))) why = "wrong audience";
	if(why){
		mosquitto_log_printf(MOSQ_LOG_NOTICE, "jwt_auth: %s refused for %s: %s", what, id, why);
	}else{
		const char *sub = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(claims, "sub"));
		mosquitto_log_printf(MOSQ_LOG_NOTICE, "jwt_auth: %s accepted for %s sub=%s exp in %lds", what, id, sub ? sub : "-", (long)(exp - now));
		forget(client, id); /* a take-over replaces the older connection's entry */
		struct session *s = calloc(1, sizeof *s);
		s->client = client; s->id = strdup(id ? id : ""); s->exp = exp; s->next = sessions; sessions = s;
	}
	cJSON_Delete(claims);
	return why ? MOSQ_ERR_AUTH : MOSQ_ERR_SUCCESS;
}

static int on_basic_auth(int event, void *data, void *user)
{
	struct mosquitto_evt_basic_auth *ed = data;
	return check(ed->client, "password", ed->password, ed->password ? strlen(ed->password) : 0);
}

static int on_ext_auth(int event, void *data, void *user) /* START: CONNECT, or AUTH 0x19 */
{
	struct mosquitto_evt_extended_auth *ed = data;
	/* 2.0.11 leaves auth_method NULL for CONTINUE, and checks itself that the method is that of CONNECT */
	if(event == MOSQ_EVT_EXT_AUTH_START && strcmp(ed->auth_method, METHOD)) return MOSQ_ERR_NOT_SUPPORTED;
	if(event == MOSQ_EVT_EXT_AUTH_START && ed->data_in_len == 0){ /* request the token: AUTH 0x18 */
		static const char ask[] = "token?";
		ed->data_out = mosquitto_malloc(sizeof ask - 1);
		memcpy(ed->data_out, ask, sizeof ask - 1);
		ed->data_out_len = sizeof ask - 1;
		return MOSQ_ERR_AUTH_CONTINUE;
	}
	return check(ed->client, event == MOSQ_EVT_EXT_AUTH_START ? "auth-start" : "auth-continue", ed->data_in, ed->data_in_len);
}

static int on_disconnect(int event, void *data, void *user)
{
	forget(((struct mosquitto_evt_disconnect *)data)->client, NULL);
	return MOSQ_ERR_SUCCESS;
}

static void die_if_saved(void) /* a tick comes right after a save, before the next packet is read */
{
	static struct timespec last;
	struct stat now;
	if(!database || !die || stat(database, &now)) return;
	bool saved = now.st_mtim.tv_sec != last.tv_sec || now.st_mtim.tv_nsec != last.tv_nsec;
	last = now.st_mtim;
	if(saved && !access(die, F_OK)) raise(SIGKILL);
}

static int on_tick(int event, void *data, void *user)
{
	die_if_saved();
	time_t now = time(NULL);
	for(struct session *s = sessions; kick && s; s = s->next){
		if(s->exp <= now){
			char *id = strdup(s->id);
			mosquitto_log_printf(MOSQ_LOG_NOTICE, "jwt_auth: token of %s expired, kicking", id);
			forget(s->client, NULL); /* before the kick, which changes the list */
			mosquitto_kick_client_by_clientid(id, true);
			free(id);
			break; /* the next one at the next tick (at most 100 ms later) */
		}
	}
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_version(int n, const int *versions)
{
	for(int i = 0; i < n; i++) if(versions[i] == 5) return 5;
	return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **user, struct mosquitto_opt *opts, int n)
{
	plugin_id = identifier;
	for(int i = 0; i < n; i++){
		if(!strcmp(opts[i].key, "key")){
			FILE *f = fopen(opts[i].value, "rb");
			if(!f || n_keys == 8 || !(keys[n_keys++] = PEM_read_PUBKEY(f, NULL, NULL, NULL))) return MOSQ_ERR_INVAL;
			fclose(f);
		}
		else if(!strcmp(opts[i].key, "aud")) aud = strdup(opts[i].value);
		else if(!strcmp(opts[i].key, "on_expiry")) kick = !strcmp(opts[i].value, "kick");
		else if(!strcmp(opts[i].key, "database")) database = strdup(opts[i].value);
		else if(!strcmp(opts[i].key, "die")) die = strdup(opts[i].value);
	}
	if(!n_keys) return MOSQ_ERR_INVAL;
	mosquitto_callback_register(identifier, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL, NULL);
	mosquitto_callback_register(identifier, MOSQ_EVT_EXT_AUTH_START, on_ext_auth, NULL, NULL);
	mosquitto_callback_register(identifier, MOSQ_EVT_EXT_AUTH_CONTINUE, on_ext_auth, NULL, NULL);
	mosquitto_callback_register(identifier, MOSQ_EVT_DISCONNECT, on_disconnect, NULL, NULL);
	mosquitto_callback_register(identifier, MOSQ_EVT_TICK, on_tick, NULL, NULL);
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *user, struct mosquitto_opt *opts, int n)
{
	mosquitto_callback_unregister(plugin_id, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL);
	mosquitto_callback_unregister(plugin_id, MOSQ_EVT_EXT_AUTH_START, on_ext_auth, NULL);
	mosquitto_callback_unregister(plugin_id, MOSQ_EVT_EXT_AUTH_CONTINUE, on_ext_auth, NULL);
	mosquitto_callback_unregister(plugin_id, MOSQ_EVT_DISCONNECT, on_disconnect, NULL);
	mosquitto_callback_unregister(plugin_id, MOSQ_EVT_TICK, on_tick, NULL);
	while(sessions) forget(sessions->client, NULL);
	while(n_keys) EVP_PKEY_free(keys[--n_keys]);
	return MOSQ_ERR_SUCCESS;
}
