"""SendGrid, simulated: what its v3 API and its event webhook do. https://www.twilio.com/docs/sendgrid/api-reference"""
