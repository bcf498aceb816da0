#!/usr/bin/env node
'use strict';
/*
 * Throwaway AWS stand-in for running the real @cumulus/api locally. In memory, node core only.
 *   PORT=4566 STUB_LOG=/path/calls.jsonl node aws-stub.js
 * Implements just what the archive API calls: S3, SNS, Lambda (event source mappings, permissions, Invoke),
 * EventBridge, SQS, DynamoDB (access tokens), Secrets Manager, Step Functions, ECS/KMS/STS basics.
 * GET /_stub/calls (all AWS calls so far), POST /_stub/reset, GET /_stub/state,
 * POST /_stub/execution?arn=&status= (a Step Functions execution), POST /_stub/fail?op= (the next such call is denied),
 * POST /_stub/allow (none is)
 */
const http = require('http');
const fs = require('fs');
const crypto = require('crypto');
const port = Number(process.env.PORT || 4566);
const fresh = () => ({ executions: {}, s3: {}, esm: {}, subs: {}, rules: {}, targets: {}, policy: {}, queues: {}, ddb: {}, secrets: {}, topics: {} });
let st = fresh(); let calls = []; const denied = [];
const ACC = '123456789012';
const note = (svc, op, args) => {
  const c = { at: new Date().toISOString(), svc, op, args }; calls.push(c);
  if (denied.includes(op)) { denied.splice(denied.indexOf(op), 1); throw Object.assign(new Error(`${op} is denied`), { denied: true }); }
  if (process.env.STUB_LOG) fs.appendFileSync(process.env.STUB_LOG, `${JSON.stringify(c)}\n`);
};
const xmlEsc = (s) => String(s).replace(/[<>&]/g, (c) => ({ '<': '&lt;', '>': '&gt;', '&': '&amp;' }[c]));
const server = http.createServer((req, res) => {
  const chunks = [];
  req.on('data', (d) => chunks.push(d)).on('end', () => {
    let body = Buffer.concat(chunks);
    const u = new URL(req.url, 'http://x');
    const send = (code, data, type = 'application/json', headers = {}) => {
      res.writeHead(code, { 'content-type': type, 'x-amzn-requestid': crypto.randomUUID(), ...headers });
      res.end(req.method === 'HEAD' ? undefined : (Buffer.isBuffer(data) || typeof data === 'string' ? data : JSON.stringify(data)));
    };
    const fail = (code, name, message = name) => send(code, { __type: name, Type: 'User', message, Message: message }, 'application/json', { 'x-amzn-errortype': name });
    try { route(); } catch (e) {
      if (e.denied) return (req.headers['content-type'] || '').includes('x-www-form-urlencoded') ? send(403, `<ErrorResponse><Error><Type>Sender</Type><Code>AuthorizationError</Code><Message>${e.message}</Message></Error></ErrorResponse>`, 'text/xml') : fail(403, 'AccessDeniedException', e.message);
      console.error(e); fail(500, 'InternalFailure', e.message);
    }
    function route() {
      if (u.pathname === '/_stub/calls') return send(200, calls);
      if (u.pathname === '/_stub/state') return send(200, st);
      if (u.pathname === '/_stub/fail') { denied.push(u.searchParams.get('op')); return send(200, {}); }
      if (u.pathname === '/_stub/allow') { denied.length = 0; return send(200, {}); }
      if (u.pathname === '/_stub/execution') { st.executions[u.searchParams.get('arn')] = u.searchParams.get('status'); return send(200, {}); }
      if (u.pathname === '/_stub/reset') { calls = []; if (u.searchParams.get('all')) st = fresh(); return send(200, {}); }
      const target = req.headers['x-amz-target'];
      if (target) return jsonrpc(target, body.length ? JSON.parse(body) : {});
      if (/^\/20\d\d-\d\d-\d\d\//.test(u.pathname)) return lambda();
      if ((req.headers['content-type'] || '').includes('x-www-form-urlencoded')) return query(new URLSearchParams(body.toString()));
      return s3();
    }
    function jsonrpc(target, b) {
      const [ns, op] = target.split('.'); note(ns, op, b);
      switch (target) {
      case 'AWSEvents.PutRule': st.rules[b.Name] = b; return send(200, { RuleArn: `arn:aws:events:us-east-1:${ACC}:rule/${b.Name}` });
      case 'AWSEvents.DescribeRule': { const r = st.rules[b.Name]; return r ? send(200, { Name: r.Name, State: r.State || 'ENABLED', ScheduleExpression: r.ScheduleExpression }) : fail(400, 'ResourceNotFoundException'); }
      case 'AWSEvents.PutTargets': st.targets[b.Rule] = b.Targets; return send(200, { FailedEntryCount: 0, FailedEntries: [] });
      case 'AWSEvents.ListTargetsByRule': return st.rules[b.Rule] ? send(200, { Targets: st.targets[b.Rule] || [] }) : fail(400, 'ResourceNotFoundException');
      case 'AWSEvents.RemoveTargets': if (!st.rules[b.Rule]) return fail(400, 'ResourceNotFoundException'); delete st.targets[b.Rule]; return send(200, { FailedEntryCount: 0, FailedEntries: [] });
      case 'AWSEvents.DeleteRule': delete st.rules[b.Name]; return send(200, {});
      case 'AmazonSQS.CreateQueue': { const QueueUrl = `http://127.0.0.1:${port}/${ACC}/${b.QueueName}`; st.queues[QueueUrl] = b.Attributes || {}; return send(200, { QueueUrl }, 'application/x-amz-json-1.0'); }
      case 'AmazonSQS.GetQueueUrl': { const q = Object.keys(st.queues).find((k) => k.endsWith(`/${b.QueueName}`)); return q ? send(200, { QueueUrl: q }) : fail(400, 'com.amazonaws.sqs#QueueDoesNotExist'); }
      case 'AmazonSQS.GetQueueAttributes': { const a = st.queues[b.QueueUrl]; return a ? send(200, { Attributes: { VisibilityTimeout: '30', ApproximateNumberOfMessages: '0', ...a } }) : fail(400, 'com.amazonaws.sqs#QueueDoesNotExist'); }
      case 'AmazonSQS.SendMessage': return send(200, { MessageId: crypto.randomUUID(), MD5OfMessageBody: crypto.createHash('md5').update(b.MessageBody).digest('hex') });
      case 'DynamoDB_20120810.GetItem': { const i = (st.ddb[b.TableName] || {})[JSON.stringify(b.Key)]; return send(200, i ? { Item: i } : {}); }
      case 'DynamoDB_20120810.PutItem': { const k = Object.keys(b.Item).includes('accessToken') ? { accessToken: b.Item.accessToken } : b.Item; (st.ddb[b.TableName] ||= {})[JSON.stringify(k)] = b.Item; return send(200, {}); }
      case 'DynamoDB_20120810.DeleteItem': delete (st.ddb[b.TableName] || {})[JSON.stringify(b.Key)]; return send(200, {});
      case 'secretsmanager.CreateSecret': case 'secretsmanager.PutSecretValue': st.secrets[b.Name || b.SecretId] = b.SecretString; return send(200, { ARN: b.Name || b.SecretId, Name: b.Name });
      case 'secretsmanager.GetSecretValue': return b.SecretId in st.secrets ? send(200, { ARN: b.SecretId, Name: b.SecretId, SecretString: st.secrets[b.SecretId] }) : fail(400, 'ResourceNotFoundException', 'no such secret');
      case 'TrentService.Encrypt': return send(200, { CiphertextBlob: b.Plaintext, KeyId: b.KeyId });
      case 'TrentService.Decrypt': return send(200, { Plaintext: b.CiphertextBlob });
      case 'AWSStepFunctions.ListStateMachines': return send(200, { stateMachines: ['HelloWorldWorkflow', 'IngestGranule'].map((n) => ({ stateMachineArn: `arn:aws:states:us-east-1:${ACC}:stateMachine:localrun-${n}`, name: `localrun-${n}`, type: 'STANDARD', creationDate: Date.now() / 1000 })) }, 'application/x-amz-json-1.0');
      case 'AWSStepFunctions.DescribeExecution': return send(200, { executionArn: b.executionArn, stateMachineArn: 'arn:aws:states:us-east-1:123456789012:stateMachine:x', name: b.executionArn.split(':').pop(), status: (st.executions || {})[b.executionArn] || 'SUCCEEDED', startDate: Date.now() / 1000 - 1, stopDate: Date.now() / 1000 }, 'application/x-amz-json-1.0');
      case 'AWSStepFunctions.ListExecutions': return send(200, { executions: Object.entries(st.executions || {}).filter(([a, v]) => a.includes(`:${b.stateMachineArn.split(':').pop()}:`) && (!b.statusFilter || v === b.statusFilter)).map(([a, v]) => ({ executionArn: a, stateMachineArn: b.stateMachineArn, name: a.split(':').pop(), status: v, startDate: Date.now() / 1000 })) }, 'application/x-amz-json-1.0');
      default: return fail(400, 'UnknownOperationException', target);
      }
    }
    function lambda() {
      const p = u.pathname.split('/').slice(2); const j = body.length ? (() => { try { return JSON.parse(body); } catch { return String(body); } })() : {};
      if (p[0] === 'event-source-mappings') {
        if (req.method === 'GET' && !p[1]) {
          const q = Object.fromEntries(u.searchParams); note('Lambda', 'ListEventSourceMappings', q);
          return send(200, { EventSourceMappings: Object.values(st.esm).filter((m) => m.EventSourceArn === q.EventSourceArn && (!q.FunctionName || m.FunctionName === q.FunctionName)) });
        }
        if (req.method === 'GET') { const m = st.esm[p[1]]; return m ? send(200, m) : fail(404, 'ResourceNotFoundException'); }
        if (req.method === 'POST') { note('Lambda', 'CreateEventSourceMapping', j); const m = { ...j, FunctionArn: j.FunctionName, UUID: crypto.randomUUID(), State: 'Enabled' }; st.esm[m.UUID] = m; return send(202, m); }
        if (req.method === 'PUT') { note('Lambda', 'UpdateEventSourceMapping', { UUID: p[1], ...j }); const m = st.esm[p[1]]; if (!m) return fail(404, 'ResourceNotFoundException'); m.State = j.Enabled ? 'Enabled' : 'Disabled'; return send(202, m); }
        if (req.method === 'DELETE') { note('Lambda', 'DeleteEventSourceMapping', { UUID: p[1] }); const m = st.esm[p[1]]; if (!m) return fail(404, 'ResourceNotFoundException'); delete st.esm[p[1]]; return send(202, { ...m, State: 'Deleting' }); }
      }
      if (p[0] === 'functions' && p[2] === 'policy') {
        const fn = decodeURIComponent(p[1]);
        if (req.method === 'GET') {
          note('Lambda', 'GetPolicy', { fn });
          const all = Object.entries(st.policy).filter(([k]) => k.startsWith(`${fn}|`)).map(([, v]) => v);
          if (!all.length) return fail(404, 'ResourceNotFoundException', 'No policy is associated with the given resource.');
          return send(200, { Policy: JSON.stringify({ Version: '2012-10-17', Statement: all.map((v) => ({ Sid: v.StatementId, Effect: 'Allow', Principal: { Service: v.Principal }, Action: v.Action, Resource: fn, Condition: { ArnLike: { 'AWS:SourceArn': v.SourceArn } } })) }) });
        }
        if (req.method === 'POST') { note('Lambda', 'AddPermission', { fn, ...j }); const k = `${fn}|${j.StatementId}`; if (st.policy[k]) return fail(409, 'ResourceConflictException', `The statement id (${j.StatementId}) provided already exists`); st.policy[k] = j; return send(201, { Statement: '{}' }); }
        if (req.method === 'DELETE') { const k = `${fn}|${decodeURIComponent(p[3])}`; note('Lambda', 'RemovePermission', { fn, StatementId: p[3] }); if (!st.policy[k]) return fail(404, 'ResourceNotFoundException', 'No policy is associated with the given resource.'); delete st.policy[k]; return send(204, ''); }
      }
      if (p[0] === 'functions' && p[2] === 'invocations') { note('Lambda', 'Invoke', { fn: decodeURIComponent(p[1]), type: req.headers['x-amz-invocation-type'], payload: j }); return send(req.headers['x-amz-invocation-type'] === 'Event' ? 202 : 200, { statusCode: 200, body: '{}' }); }
      note('Lambda', `${req.method} ${u.pathname}`, j); return fail(404, 'ResourceNotFoundException');
    }
    function query(q) {
      const a = q.get('Action'); const o = Object.fromEntries(q); note('SNS', a, o);
      const ok = (inner) => send(200, `<${a}Response xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><${a}Result>${inner}</${a}Result><ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></${a}Response>`, 'text/xml');
      switch (a) {
      case 'CreateTopic': { const t = `arn:aws:sns:us-east-1:${ACC}:${o.Name}`; st.topics[t] = {}; return ok(`<TopicArn>${t}</TopicArn>`); }
      case 'Publish': return ok(`<MessageId>${crypto.randomUUID()}</MessageId>`);
      case 'Subscribe': { const s = `${o.TopicArn}:${crypto.randomUUID()}`; st.subs[s] = { TopicArn: o.TopicArn, Protocol: o.Protocol, Endpoint: o.Endpoint }; return ok(`<SubscriptionArn>${s}</SubscriptionArn>`); }
      case 'Unsubscribe': delete st.subs[o.SubscriptionArn]; return ok('');
      case 'ListSubscriptionsByTopic': return ok(`<Subscriptions>${Object.entries(st.subs).filter(([, s]) => s.TopicArn === o.TopicArn).map(([k, s]) => `<member><SubscriptionArn>${k}</SubscriptionArn><TopicArn>${s.TopicArn}</TopicArn><Protocol>${s.Protocol}</Protocol><Endpoint>${xmlEsc(s.Endpoint)}</Endpoint><Owner>${ACC}</Owner></member>`).join('')}</Subscriptions>`);
      case 'GetCallerIdentity': return ok(`<Account>${ACC}</Account><Arn>arn:aws:iam::${ACC}:root</Arn><UserId>x</UserId>`);
      default: return send(400, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>${a}</Message></Error></ErrorResponse>`, 'text/xml');
      }
    }
    function s3() {
      const [, bucket, ...rest] = u.pathname.split('/'); const key = decodeURIComponent(rest.join('/'));
      const x = (code, c) => send(code, `<?xml version="1.0"?><Error><Code>${c}</Code><Message>${c}</Message></Error>`, 'application/xml');
      note('S3', req.method, { bucket, key });
      const b = st.s3[bucket];
      if (!key) {
        if (req.method === 'PUT') { st.s3[bucket] ||= {}; return send(200, '', 'application/xml', { location: `/${bucket}` }); }
        if (!b) return x(404, 'NoSuchBucket');
        const pre = u.searchParams.get('prefix') || '';
        const ks = Object.keys(b).filter((k) => k.startsWith(pre)).sort();
        return send(200, `<?xml version="1.0"?><ListBucketResult><Name>${bucket}</Name><Prefix>${xmlEsc(pre)}</Prefix><KeyCount>${ks.length}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>${ks.map((k) => `<Contents><Key>${xmlEsc(k)}</Key><Size>${Buffer.from(b[k], 'base64').length}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag></Contents>`).join('')}</ListBucketResult>`, 'application/xml');
      }
      if (!b) return x(404, 'NoSuchBucket');
      if (req.method === 'PUT') {
        if ((req.headers['content-encoding'] || '').includes('aws-chunked')) { // strip the chunk framing
          let out = []; let i = 0;
          for (;;) { const e = body.indexOf('\r\n', i); const n = parseInt(body.slice(i, e).toString(), 16); if (!n) break; out.push(body.slice(e + 2, e + 2 + n)); i = e + 4 + n; }
          body = Buffer.concat(out);
        }
        b[key] = body.toString('base64'); return send(200, '', 'application/xml', { etag: `"${crypto.createHash('md5').update(body).digest('hex')}"` });
      }
      if (!(key in b)) return x(404, 'NoSuchKey');
      if (req.method === 'DELETE') { delete b[key]; return send(204, ''); }
      const data = Buffer.from(b[key], 'base64');
      res.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': data.length, etag: `"${crypto.createHash('md5').update(data).digest('hex')}"`, 'last-modified': new Date(0).toUTCString() });
      return res.end(req.method === 'HEAD' ? undefined : data);
    }
  });
});
server.listen(port, '127.0.0.1', () => console.log(`aws-stub on 127.0.0.1:${port}`));
