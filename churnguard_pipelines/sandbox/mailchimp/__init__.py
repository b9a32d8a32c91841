"""A simulated Mailchimp Marketing API, written from its public reference. https://mailchimp.com/developer/marketing/api/"""
